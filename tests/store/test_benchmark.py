"""The store's benchmark runs, on a small recording, and holds its bars there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_store.py"


@pytest.mark.slow
def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("bench_store", SCRIPT)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    monkeypatch.setattr(bench, "SIZES", ((30, 112),))
    monkeypatch.setattr(sys, "argv", ["bench_store.py"])
    assert bench.main() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("30 steps x 130 nodes, ")
    for question in bench.BARS:
        assert f"\n  {question} " in shown
