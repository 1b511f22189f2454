"""Remote file systems for tests: fsspec's in memory, and an S3 server of this process; and what is written to them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from stepscope.store import NotARecordingError, Trial, open_trial
from stepscope.store.records import TrialEnd
from stepscope.store.remote.writer import RemoteTrialWriter
from support.records import assert_step_is
from support.synthetic import Synthetic

SYNTHETIC = Synthetic(blocks=1, width=6, iterations=2)
RECORDS = [SYNTHETIC.record(index) for index in range(12)]
_started = count()
S3_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}


@contextlib.contextmanager
def s3_server(port: int = 0) -> Iterator[str]:
    """An S3 server on this machine; gives its address (``http://...``)."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def new_writer(address: str, **options: Any) -> RemoteTrialWriter:
    """A writer that uploads all the time."""
    info = replace(SYNTHETIC.info(), started=1e9 + next(_started))
    return RemoteTrialWriter(address, info, **{"interval": 0.02, "wait": 20.0, **options})


def write_remote(address: str, steps: int = 3, **options: Any) -> str:
    """Write and close a trial; returns its address."""
    writer = new_writer(address, **options)
    for record in RECORDS[:steps]:
        writer.write_step(record)
    writer.close(TrialEnd("finished", 1.0))
    assert not writer.troubles
    return f"{address}/{writer.name}"


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something has come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def uploaded(address: str, steps: int) -> Trial:
    """The trial at an address, once so many steps are there."""
    group = []

    def is_there() -> bool:
        with contextlib.suppress(NotARecordingError):
            group[:] = [open_trial(address)]
        return bool(group) and len(group[0].steps) >= steps

    eventually(is_there)
    return group[0]


def check(trial: Trial, steps: int, state: str = "finished") -> None:
    """The trial holds the first so many records, bit for bit, and nothing is wrong with it."""
    assert trial.steps.tolist() == [record.number for record in RECORDS[:steps]]
    assert (trial.state, trial.problems) == (state, ())
    for record in RECORDS[:steps]:
        assert_step_is(trial.step(record.number), record)
