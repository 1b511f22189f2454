"""Writes docs/support.md from the tests that are marked with ``supports``: ``python scripts/support_table.py``."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS, PAGE = ROOT / "tests", ROOT / "docs" / "support.md"
AREAS = (
    "Training is not changed",
    "Training is not stopped",
    "What was recorded is kept",
    "Numbers are right",
    "Modules and outputs",
    "Parameters",
    "Tensors",
    "Graph",
    "Gradients",
    "Optimizers",
    "Steps",
    "Changing models",
    "Compilation",
    "Size",
    "It is cheap, and says what it costs",
    "Several processes",
    "Selection",
    "Lightning",
)
INTRODUCTION = """\
# What is supported

Every line is shown by the test beside it. This page is written by `python scripts/support_table.py` from the tests that
are marked with `supports(area, what, limit=...)`; a test fails if it is not up to date."""


@dataclass(frozen=True)
class Claim:
    """One line of the page: what is supported, with which limit, and the test that shows it."""

    area: str
    what: str
    limit: str
    file: str
    test: str


def claims(tests: Path = TESTS) -> list[Claim]:
    """All claims of the tests, in the order of files and lines."""
    return [claim for path in sorted(tests.rglob("test_*.py")) for claim in _claims_of(path)]


def render() -> str:
    """The page."""
    found = claims()
    unknown = {claim.area for claim in found} - set(AREAS)
    if unknown:
        raise SystemExit(f"areas that scripts/support_table.py does not know: {', '.join(sorted(unknown))}")
    parts = [INTRODUCTION]
    for area in AREAS:
        rows = [claim for claim in found if claim.area == area]
        parts.append(f"## {area}\n\n{_table(rows)}")
        if area == "Training is not changed":
            parts.append(_architectures())
    return "\n\n".join(parts) + "\n"


def _claims_of(path: Path) -> Iterator[Claim]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            for call in map(_supports, node.decorator_list):
                if call is not None:
                    area, what = (ast.literal_eval(argument) for argument in call.args)
                    limit = next((ast.literal_eval(word.value) for word in call.keywords if word.arg == "limit"), "")
                    yield Claim(area, what, limit, path.relative_to(ROOT).as_posix(), node.name)


def _supports(decorator: ast.expr) -> ast.Call | None:
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.supports":
        return decorator
    return None


def _table(rows: list[Claim]) -> str:
    """The claims of an area; one that several tests show is one line."""
    shown: dict[tuple[str, str], list[str]] = {}
    for claim in rows:
        name = claim.test.removeprefix("test_").replace("_", " ")
        shown.setdefault((claim.what, claim.limit), []).append(f"[{name}](../{claim.file})")
    lines = [f"| {what} | {limit} | {', '.join(links)} |" for (what, limit), links in shown.items()]
    return "\n".join(["| what | limit | shown by |", "|---|---|---|", *lines])


def _architectures() -> str:
    """The training runs that are compared, by name."""
    sys.path.insert(0, str(TESTS))
    from support.architectures import ARCHITECTURES

    names = ", ".join(name.replace("_", " ") for name in sorted(ARCHITECTURES))
    return f"Compared are {len(ARCHITECTURES)} training runs, recorded at every step, every third, and never: {names}."


if __name__ == "__main__":
    PAGE.write_text(render())
