"""The page of what is supported is that which the tests tell."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "support_table.py"))
PAGE = ROOT / "docs" / "support.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == SCRIPT["render"](), "write it again with: python scripts/support_table.py"


def test_every_area_has_claims() -> None:
    claims = SCRIPT["claims"]()
    assert {claim.area for claim in claims} == set(SCRIPT["AREAS"])
    assert len({(claim.area, claim.what) for claim in claims}) > 60


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text())
    assert len(links) > 60
    assert [link for link in links if not (PAGE.parent / link).is_file()] == []


def test_an_area_that_is_not_known_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "support_table.py"))
    odd = script["Claim"]("Cooking", "soup", "", "tests/test_soup.py", "test_soup")
    monkeypatch.setitem(script["render"].__globals__, "claims", lambda: [odd])
    with pytest.raises(SystemExit, match="Cooking"):
        script["render"]()
