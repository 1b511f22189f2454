"""The health check of steps that are not recorded: a look at the gradients they leave behind, and at little else.

Nothing is hooked and no mode is set. When such a step ends, the norm of what lies in the parameters' ``.grad`` is
taken in one fused call. On the CPU its value is known at once; on a GPU it is copied to the host without waiting, and
looked at some steps later. Numbers that are not finite, or far above what was usual, are told in the recording, and the
next steps are recorded in full.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from statistics import mean, median

import torch

from stepscope.recorder.errors import RecorderError
from stepscope.recorder.fused_norm import NormReader, Reading, can_be_read
from stepscope.recorder.usual import Usual

GROUP = "health"
GRADIENTS, PARAMETERS, LOSS = "gradient norm", "parameter norm", "loss"

_SHARE = 0.008
"""Of the time that looking may take: where it takes more, only every second, fourth, ... step is looked at."""
_LOOKS = 16
"""After how many looks the pace is found again."""
_RHYTHM = 32
"""Looks from one at the gradients that also looks at the parameters to the next."""
_EXTRA = 3
"""So many steps are recorded after trouble."""
_REST = 1000
"""So many steps must pass before trouble leads to recordings again; more after each time."""
_LONGER = 2
"""How many times as many.

Training that has memorised its data jumps out of its minimum again and again: 3 of each 1000 steps took a tenth of the
time of one whose steps are short.
"""
_POINTS_EVERY = 100
"""Looks that become one point of each curve."""


def is_wanted(health: object) -> bool:
    """Whether steps are to be looked at, by what the user gave.

    Raises:
        RecorderError: it is no answer.
    """
    if not isinstance(health, bool):
        raise RecorderError(f"health={health!r}: expected True or False")
    return health


class HealthCheck:
    """Looks at unrecorded steps. ``point`` and ``message`` put what was seen into the recording.

    Args:
        point: called with a name, a value, the number of the step and its kind.
        message: called with a text and the number of the step.
    """

    def __init__(self, point: Callable[[str, float, int, str], None], message: Callable[[str, int], None]) -> None:
        self._point = point
        self._message = message
        self._reader = NormReader()
        self._parameters: list[torch.Tensor] = []
        self._is_scaled = False
        self._open: tuple[int, str] | None = None
        self._loss: torch.Tensor | None = None
        self._looks = 0
        self._pace = _Pace()
        self._usual: dict[str, Usual] = {}
        self._span: dict[str, list[tuple[float, int]]] = {}
        self._bad: set[str] = set()
        self._extra: dict[str, int] = {}
        self._rests_until = -1
        self._rest = _REST

    def attach(self, parameters: Iterable[torch.Tensor], *, scaled: bool) -> None:
        """Look at these from now on; ``scaled`` if a loss scale is used, whose search makes gradients overflow."""
        # Those that are spread over processes are left out: their norm would be waited for in all of these.
        self._parameters = [
            one for one in parameters if one.requires_grad and type(one) is torch.nn.Parameter and can_be_read(one)
        ]
        self._is_scaled = self._is_scaled or scaled

    def wants(self, kind: str) -> bool:
        """Whether the step that begins is to be recorded for what was seen in those before."""
        left = self._extra.get(kind, 0)
        if left:
            self._extra[kind] = left - 1
        return left > 0

    def begin(self, number: int, kind: str) -> None:
        """An unrecorded step begins."""
        is_due = number >= self._pace.next_look or number < self._pace.last_look  # set back
        self._open = (number, kind) if is_due else None
        self._loss = None

    def rest(self, number: int) -> int:
        """How many steps after the one of this number are surely not looked at."""
        return max(0, self._pace.next_look - number - 1)

    def see_loss(self, loss: torch.Tensor) -> None:
        """The user recorded this as the loss of the step."""
        if self._open is not None and loss.numel() == 1 and can_be_read(loss):
            self._loss = loss.detach()

    def end(self) -> None:
        """The unrecorded step is over: look at what it left."""
        opened, self._open = self._open, None
        if opened is None:
            return
        started = time.thread_time()
        self._look(*opened)
        for reading in self._reader.ready():
            self._judge(reading)
        self._pace.looked(opened[0], started)

    def close(self) -> None:
        """Put the points into the recording that are not in it yet."""
        for kind in list(self._span):
            self._draw(kind)
        self._parameters = []
        self._loss = None

    def _look(self, number: int, kind: str) -> None:
        gradients = [gradient for parameter in self._parameters if (gradient := parameter.grad) is not None]
        if gradients:
            self._reader.take(GRADIENTS, gradients, number, kind)
        if self._loss is not None:
            self._reader.take(LOSS, [self._loss], number, kind)
            self._loss = None
        if self._parameters and self._looks % _RHYTHM == 0:
            self._reader.take(PARAMETERS, self._parameters, number, kind)
        self._looks += 1

    def _judge(self, reading: Reading) -> None:
        name, value = reading.name, reading.value
        if not math.isfinite(value):
            if name not in self._bad and not (name == GRADIENTS and self._is_scaled):
                self._bad.add(name)
                self._alarm(reading, f"the {name} was {value}")
            return
        self._bad.discard(name)
        if name == GRADIENTS:
            self._judge_size(reading)

    def _judge_size(self, reading: Reading) -> None:
        usual = self._usual.setdefault(reading.kind, Usual())
        if usual.is_exceeded_by(reading.value):
            self._alarm(reading, f"the {reading.name} was {reading.value:.4g}, but {usual.middle:.4g} is usual")
        usual.add(reading.value)
        span = self._span.setdefault(reading.kind, [])
        span.append((reading.value, reading.step))
        if len(span) >= _POINTS_EVERY:
            self._draw(reading.kind)

    def _alarm(self, reading: Reading, text: str) -> None:
        if math.isfinite(reading.value) and reading.step < self._rests_until:
            return
        self._point(reading.name, reading.value, reading.step, reading.kind)
        if reading.step >= self._rests_until:
            self._rests_until = reading.step + self._rest
            self._rest *= _LONGER
            self._extra[reading.kind] = _EXTRA
            text += f"; the next {_EXTRA} steps are recorded"
        self._message(f"health check: {text}", reading.step)

    def _draw(self, kind: str) -> None:
        span, self._span[kind] = self._span[kind], []
        if span:
            self._point(GRADIENTS, median(value for value, _ in span), span[-1][1], kind)
            largest, step = max(span)
            self._point(f"largest {GRADIENTS}", largest, step, kind)


class _Pace:
    """Leaves steps out where a look would take more than its share of a step.

    Both are measured in processor time of the training thread: in seconds of the clock, other work on the machine makes
    steps longer, and most looks not.

    Attributes:
        last_look, next_look: the numbers of the last step that was looked at, and of the next one to look at.
    """

    def __init__(self) -> None:
        self.last_look = self.next_look = 0
        self._stride = 1
        self._ended = time.thread_time()
        self._costs: list[float] = []
        self._gaps: list[float] = []

    def looked(self, number: int, started: float) -> None:
        """The look at the end of the step of this number, which started at this moment, is over."""
        ended, self._ended = self._ended, time.thread_time()
        self._costs.append(self._ended - started)
        self._gaps.append((started - ended) / max(1, number - self.last_look))
        if len(self._costs) == _LOOKS:
            # The mean of the costs, since some looks take much longer than most; steps between may be recorded ones.
            needed = mean(self._costs) / max(_SHARE * median(self._gaps), 1e-9)
            self._stride = 1 << max(0, math.ceil(math.log2(max(needed, 1.0))))
            self._costs.clear()
            self._gaps.clear()
        self.last_look, self.next_look = number, number + self._stride
