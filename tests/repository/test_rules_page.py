"""The page of the findings says what the rules' docstrings say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from stepscope.analysis import RULES

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "rules_page.py"))
PAGE = ROOT / "docs" / "findings.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == SCRIPT["render"](), "write it again with: python scripts/rules_page.py"


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_documented(name: str) -> None:
    text = RULES[name].__doc__ or ""
    assert "Symptom:" in text and "How it is measured:" in text and "Remedy:" in text
    assert RULES[name].causes and RULES[name].remedy


@pytest.mark.parametrize("name", RULES)
def test_every_line_of_the_settings_has_a_default(name: str) -> None:
    assert "` |  | " not in SCRIPT["_section"](name, RULES[name])
