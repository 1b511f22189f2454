"""The rule ``batch-norm-mode``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.alike import together
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.history import History, Values
from stepscope.analysis.layers import rms
from stepscope.analysis.lines import line_of_call
from stepscope.analysis.parameters import has_gradient, listed
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.running_statistics import (
    input_size,
    is_part_of_what_moves,
    moving_in_frozen,
    never_began,
    norms,
)
from stepscope.analysis.view import View, evidence
from stepscope.store.records import SourceLine


@dataclass(frozen=True)
class BatchNormMode(Rule):
    """Batch normalisation that works in the wrong mode, or whose running statistics do not fit.

    Symptom: results in evaluation depend on what else is in the batch, or are far worse than in training.

    How it is measured: in training mode the output of a BatchNorm has the mean of its bias, up to rounding, whatever
    goes in; in evaluation mode it has not. So the mode of each recorded step shows in the numbers (of float32 outputs).
    Evaluation mode in training counts if the layer learns; it is worth knowing only if no step is in the other mode:
    a normalisation is often frozen so on purpose. Of evaluating steps in evaluation mode, the size of the
    output is compared with that in training: they differ if the running statistics are not those of the data. And the
    momentum that a call was given tells of how many batches they are. Of several calls in a step, the sizes are taken
    together.

    A call of the function ``batch_norm`` that is given ``training=True`` where nothing is trained is told by its line.

    Running statistics that are mean 0 and variance 1, exactly, in all steps of a training were never learned: what
    normalises by them in evaluation mode does nothing, which counts if what goes in has another size than 1 (and is
    worth knowing only in a net that does not change at all). Those of a normalisation that learned before and is frozen
    now, but in training mode, go on following the new data, as it is known of fine-tuning: worth knowing.

    Causes: ``model.eval()`` or ``model.train()`` is forgotten or called at the wrong time; a momentum that is too small
    for the number of steps; evaluation data that are prepared in another way.

    Remedy: call ``model.train()`` before training and ``model.eval()`` before evaluating, every time.

    Attributes:
        rounding: how far the mean may be from that of the bias, as a part of the values' size. Source: sums of float32
            are exact to 1e-6 or so; running statistics miss a batch's by 1e-3 and more.
        factor: between the sizes of the output in evaluation and training. Source: our healthy runs stay below 1.5.
        slight: of their standard deviations: worth knowing. Source: of 70 sound runs none was above 1.2.
        kept: the part of the running statistics that is still that of the start after all steps, ``(1 - momentum)`` to
            the power of the steps. Source: a cumulative average keeps 1/e; the default of 0.1 keeps 1e-5 of 100 steps.
        least: a shorter training says nothing of it.
        unlike: how far the size of what goes in is from 1, as a factor, where statistics were never learned. Source:
            of ours; a normalisation that does nothing to such data is hardly missed.
    """

    name = "batch-norm-mode"
    causes = "model.eval() or model.train() is forgotten or misplaced, or the running statistics had no time to settle."
    remedy = "Call model.train() before training and model.eval() before evaluating; use the default momentum."
    rounding: float = 1e-5
    factor: float = 3.0
    slight: float = 1.3
    kept: float = 0.6
    least: int = 50
    unlike: float = 1.5

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._momenta(view)
        yield from self._never_learned(view)
        yield from self._moving(view)
        yield from self._told_to_train(view)
        yield from together(self._of_modes(view))

    def _of_modes(self, view: View) -> Iterator[Finding]:
        """Normalisations that are in the wrong mode, or whose statistics do not fit, one by one."""
        kinds = {step.number: step.kind for step in view.steps}
        for path in _norms(view) if view.training else ():
            of_calls = (view.history(path, role=role, training=False) for role in view.nodes[path].roles)
            found = (list(self._of_call(view, path, history, kinds)) for history in of_calls)
            yield from next((findings for findings in found if findings), [])

    def _of_call(self, view: View, path: str, history: History, kinds: dict[int, str]) -> Iterator[Finding]:
        """What one of the calls of a step tells; most layers have only one."""
        in_training = self._in_training_mode(view, path, history)
        trains = np.array([kinds.get(number) in view.training_kinds for number in history.steps.tolist()], bool)
        if len(view.nodes[path].roles) == 1:  # between two calls of a step, its bias may have been updated
            yield from self._in_training(view, path, history.steps, in_training, trains)
        yield from self._in_evaluation(view, path, history, in_training, trains)

    def _momenta(self, view: View) -> Iterator[Finding]:
        """Running statistics that are still those of the start, or those of the last batch alone."""
        if not view.training:
            return
        last = view.training[-1]
        count = last.number + 1
        calls = {call for number in last.iterations for call in last.graph(number).calls if call.kind == "momentum"}
        graph = last.graph(last.iterations[0])
        for call in sorted(calls, key=lambda call: call.after):
            momentum = float(call.operation.partition("momentum=")[2].rstrip(")"))
            kept = (1 - momentum) ** count
            node = graph.vertices[(*call.after, *call.before)[0]].node
            if momentum >= 0.5:
                text = f"keep {momentum:.0%} of the last batch and forget the others: momentum is {momentum:g}"
            elif kept > self.kept and count >= self.least:
                text = f"are still {kept:.0%} those of the start after {count} steps: momentum is {momentum:g}"
            else:
                continue
            yield self.finding(
                view, node, "warning", f"The running statistics of {node} {text}, where 0.1 is usual.",
                step=view.began, confidence=0.8, source=call.source,
                remedy="Use momentum=0.1: torch's is the share of the new batch, other frameworks' that of the old.",
            )  # fmt: skip

    def _never_learned(self, view: View) -> Iterator[Finding]:
        """Evaluation mode with the statistics of the beginning."""
        unlearned = {path: since for path in never_began(view) if (since := self._evaluates(view, path)) is not None}
        sizes = {path: input_size(view, path) for path in unlearned}
        far = [path for path, size in sizes.items() if not 1 / self.unlike <= size <= self.unlike]  # or unknown
        if far:
            level: Level = "warning" if any(is_part_of_what_moves(view, path) for path in far) else "info"
            summary = (
                f"The running statistics of {listed(unlearned)} were never learned: they are mean 0 and variance 1 in "
                f"all steps, but in evaluation mode they are what normalises, and does nothing to an input of size "
                f"{sizes[far[0]]:.3g}."
            )
            others = [node for path in unlearned for node in (path, f"{path}.running_mean") if node != far[0]]
            yield self.finding(
                view, far[0], level, summary, [evidence(view.history(f"{far[0]}.running_var"), "mean", "stays 1")],
                step=unlearned[far[0]], nodes=others, confidence=0.9,
                source=self._line_of_mode(view, far[0]),
                causes="An average of parameters() alone, without the buffers, or a net that was never in train mode.",
                remedy="Copy the buffers of the net that learns, too, or let the statistics settle in training mode.",
            )  # fmt: skip

    def _line_of_mode(self, view: View, path: str) -> SourceLine | None:
        """The call of the model that has evaluation mode; one of training if there is one, which should not."""
        evaluates = self._evaluating(view, path)
        trains = [step.number for step in view.training if step.number in evaluates]
        return line_of_call(view.trial.step((trains or evaluates)[0]), path)

    def _evaluates(self, view: View, path: str) -> int | None:
        """The first of the steps in which a normalisation is in evaluation mode; None if there are less than two."""
        return next(iter(self._evaluating(view, path)), None)

    def _evaluating(self, view: View, path: str) -> list[int]:
        """The steps in which a normalisation is in evaluation mode; none if it is less than two."""
        for role in view.nodes[path].roles:
            history = view.history(path, role=role, training=False)
            steps = history.steps[~self._in_training_mode(view, path, history)]
            if len(steps) >= 2:
                return [int(number) for number in steps]
        return []

    def _moving(self, view: View) -> Iterator[Finding]:
        """Statistics of frozen layers that follow the new data."""
        moving = list(moving_in_frozen(view))
        if moving:
            summary = (
                f"The running statistics of {listed(moving)} go on moving, although their parameters are frozen: "
                f"requires_grad=False does not stop them, only evaluation mode does. Whatever else relies on these "
                f"layers finds them changed."
            )
            mean = view.history(f"{moving[0]}.running_mean", training=False)
            yield self.finding(
                view, moving[0], "info", summary, [evidence(mean, "norm", "its running mean")], nodes=moving[1:],
                step=view.began, confidence=0.8, source=line_of_call(view.training[0], moving[0]),
                causes="Frozen by requires_grad_(False) alone; model.train() sets frozen layers to training mode, too.",
                remedy="Call eval() on frozen layers after every model.train(), if they shall stay as they were.",
            )  # fmt: skip

    def _told_to_train(self, view: View) -> Iterator[Finding]:
        """Calls of the function that take training=True into the evaluation."""
        by_numbers = set(_norms(view))
        sites = [site for site in view.all_flow.sites if site.kind == "by the batch"]
        sites = [site for site in sites if not any(place.node in by_numbers for place in site.after)]
        for line in dict.fromkeys(site.source for site in sites):
            mine = [site for site in sites if site.source == line]
            nodes = list(dict.fromkeys(place.node for site in mine for place in (*site.after, *site.before)))
            steps = [step.number for step in view.steps if step.kind not in view.training_kinds]
            summary = (
                f"{nodes[0]} normalises by the batch statistics while the net is evaluated: {mine[0].operation}() is "
                f"called with training=True, so that model.eval() does not reach it."
            )
            yield self.finding(
                view, nodes[0], "warning", summary, step=(steps or [view.steps[0].number])[0], nodes=nodes[1:],
                confidence=0.9, source=line, remedy="Call it with training=self.training.",
            )  # fmt: skip

    def _in_training_mode(self, view: View, path: str, history: History) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        bias = view.history(f"{path}.bias", training=False)
        known = dict(zip(bias.steps.tolist(), bias.of("mean").tolist(), strict=True))
        expected = np.array([known.get(number, 0.0) for number in history.steps.tolist()])
        distance: Values = np.abs(history.of("mean") - expected)
        return np.asarray(distance <= self.rounding * (rms(history) + np.abs(expected)))

    def _in_training(
        self, view: View, path: str, steps: np.ndarray, mode: np.ndarray, trains: np.ndarray
    ) -> Iterator[Finding]:
        wrong = steps[trains & ~mode]
        learns = has_gradient(view, f"{path}.weight")
        if len(wrong) < 3 or len(wrong) * 2 < trains.sum() or not learns:
            return
        level: Level = "warning" if np.any(mode) else "info"
        text = (
            f"{path} is in evaluation mode in {len(wrong)} of {trains.sum()} training steps, from step {wrong[0]} on."
        )
        yield self._finding(view, path, level, text, int(wrong[0]))

    def _in_evaluation(
        self, view: View, path: str, history: History, mode: np.ndarray, trains: np.ndarray
    ) -> Iterator[Finding]:
        wrong = history.steps[~trains & mode]
        if len(wrong) >= 2 and len(wrong) * 2 > (~trains).sum():
            own = not view.modules[path].module_class.startswith(("BatchNorm", "SyncBatchNorm"))
            why = "it is in training mode, or told to train" if own else "model.eval() was not called"
            text = f"{path} normalises by the batch statistics while the net is evaluated: {why}."
            yield self._finding(view, path, "warning", text, int(wrong[0]))
            return
        sizes = _sizes(view, path, history)
        evaluated, trained = sizes[~trains & ~mode], sizes[trains & mode]
        if len(evaluated) < 2 or len(trained) < 3:
            return
        one, two = median(evaluated[-3:]), median(trained[-5:])
        if not (two / self.factor <= one <= two * self.factor):
            text = (
                f"The running statistics of {path} do not fit: its output has a size of {one:.3g} in evaluation and of "
                f"{two:.3g} in training."
            )
            began = int(history.steps[~trains & ~mode][0])
            yield self._finding(view, path, "warning", text, began, is_of_mode=False)
            return
        spread = history.of("std")
        ratio = median(spread[~trains & ~mode][-3:]) / max(median(spread[trains & mode][-5:]), 1e-30)
        if ratio > self.slight and int((trains & mode).sum()) > int(trains.sum()) / 2:
            text = (
                f"What {path} gives varies {ratio:.2f} times as much in evaluation, by running statistics, as in "
                f"training, by those of each batch: batches differ among themselves, as if each were of one source."
            )
            yield self._finding(view, path, "info", text, int(history.steps[~trains & ~mode][0]), is_of_mode=False)

    def _finding(
        self, view: View, path: str, level: Level, text: str, step: int, *, is_of_mode: bool = True
    ) -> Finding:
        shown = [evidence(view.history(path, training=False), "mean", "its mean, that of the bias in training mode")]
        call = line_of_call(view.trial.step(step), path) if is_of_mode else None
        return self.finding(view, path, level, text, shown, step=step, confidence=0.85, source=call)


def _sizes(view: View, path: str, history: History) -> Values:
    """The size of a normalisation's output in the steps of a history, over all of its calls.

    The running statistics of one that several inputs share are those of all of them together, and off for each alone.
    """
    sums: dict[int, list[float]] = {}
    for role in view.nodes[path].roles:
        of_call = view.history(path, role=role, training=False)
        for number, size in zip(of_call.steps.tolist(), rms(of_call).tolist(), strict=True):
            sums.setdefault(number, []).append(size**2)
    return np.array([float(np.mean(sums[number])) ** 0.5 for number in history.steps.tolist()])


def _norms(view: View) -> Iterator[str]:
    """The batch normalisations whose outputs are recorded in float32."""
    values = [t for part in view.readings for t in part.layout.tensors if t.quantity == "value"]
    coarse = {t.node for t in values if t.dtype != "float32"}  # a mean of bfloat16 is rounded a thousand times as much
    of_own_class = {path for path, module in norms(view) if f"{path}.bias" in view.nodes}
    for path, module in view.modules.items():
        is_norm = module.module_class.startswith(("BatchNorm", "SyncBatchNorm")) or path in of_own_class
        if is_norm and path in view.nodes and path not in coarse:
            yield path
