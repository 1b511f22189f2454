"""That a trial was gone on with after a crash, or after its end: by whom, and what was different from before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepscope.store.codec import step_from_plain
from stepscope.store.records import TrialInfo

_MOST_CHANGES = 20


@dataclass(frozen=True)
class Resumption:
    """One resumption of a trial.

    ``step`` is the first step after it. ``config`` and ``environment`` are None where they are as before.
    """

    time: float
    pid: int
    step: int
    config: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] | None = None


def resumption_to_plain(resumption: Resumption) -> dict[str, Any]:
    plain: dict[str, Any] = {"time": resumption.time, "pid": resumption.pid, "step": resumption.step}
    for name in ("config", "environment"):
        value = getattr(resumption, name)
        if value is not None:
            plain[name] = dict(value)
    return plain


def resumption_from_plain(plain: Mapping[str, Any]) -> Resumption:
    config, environment = plain.get("config"), plain.get("environment")
    return Resumption(
        float(plain["time"]),
        int(plain.get("pid", 0)),
        step_from_plain(plain["step"]),
        None if config is None else dict(config),
        None if environment is None else dict(environment),
    )


def difference(
    config: Mapping[str, Any], environment: Mapping[str, Any], now: TrialInfo, *, pid: int, step: int
) -> Resumption:
    """The resumption of a trial that had this config and environment by a process that has those of ``now``."""
    return Resumption(
        now.started,
        pid,
        step,
        None if dict(now.config) == dict(config) else now.config,
        None if dict(now.environment) == dict(environment) else now.environment,
    )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is different, in words: ``lr: 0.1, now 0.01; seed: new, 3``."""
    found = []
    for name in dict.fromkeys((*before, *now)):
        if name not in now:
            found.append(f"{name}: {before[name]!r}, now gone")
        elif name not in before:
            found.append(f"{name}: new, {now[name]!r}")
        elif before[name] != now[name]:
            found.append(f"{name}: {before[name]!r}, now {now[name]!r}")
    more = f"; and {len(found) - _MOST_CHANGES} more" if len(found) > _MOST_CHANGES else ""
    return "; ".join(found[:_MOST_CHANGES]) + more
