"""What a recorder is given, checked and made plain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_args

from stepscope.recorder.environment import environment
from stepscope.recorder.errors import RecorderError
from stepscope.recorder.optimizer_watch import plain
from stepscope.recorder.options import Options
from stepscope.recorder.sizes import as_bytes
from stepscope.store.records import Precision, TrialInfo
from stepscope.store.room import LEAST_BYTES


def make_options(
    *,
    samples: int,
    neurons: int,
    max_bytes: int | str | None,
    max_step_bytes: int | str | None,
    precision: Precision,
    **switches: bool,
) -> Options:
    """The options of a recorder.

    Raises:
        RecorderError: one of them makes no sense.
    """
    for name, value in (("samples", samples), ("neurons", neurons)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise RecorderError(f"{name}={value!r}: expected a whole number, 0 or more")
    if precision not in get_args(Precision):
        raise RecorderError(f"precision={precision!r}: expected 'float32' (exact) or 'bf16'")
    return Options(
        samples=samples,
        neurons=neurons,
        max_bytes=None if max_bytes is None else as_bytes(max_bytes, "max_bytes", least=LEAST_BYTES),
        max_step_bytes=None if max_step_bytes is None else as_bytes(max_step_bytes, "max_step_bytes", least=1),
        precision=precision,
        **switches,
    )


def check_config(config: object) -> None:
    """Raise ``RecorderError`` for what is no dict."""
    if config is not None and not isinstance(config, Mapping):
        raise RecorderError(f"config={config!r}: expected a dict of hyper-parameters by name")


def make_info(trial: str | None, config: Mapping[str, Any] | None, options: Options) -> TrialInfo:
    """What is known of a trial when it starts."""
    return TrialInfo(
        trial=datetime.now().strftime("%Y-%m-%d %H.%M.%S") if trial is None else str(trial),
        started=time.time(),
        config={str(key): _plain_config(value) for key, value in (config or {}).items()},
        environment=environment(),
        samples=options.samples,
        neuron_limit=options.neurons,
    )


def _plain_config(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_config(item) for item in value]
    return plain(value)
