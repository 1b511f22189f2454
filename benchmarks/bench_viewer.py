"""How long a person waits for the dashboard, in a headless Chromium: ``python benchmarks/bench_viewer.py``.

Medians in milliseconds. *findings* is from the request to the findings, with which the dashboard opens, in a fresh
browser profile; *ready* the same to the drawn graph; *select* from a key
press to the highlighted box; *inspector* from the same to the new tensor's numbers; *step* from a key press to the new
step's table.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from playwright.sync_api import Browser, Page

from stepscope.store import open_trial
from support.browsing import chromium, served
from support.synthetic import write_trial

SIZES = (2, 7, 36)
STEPS = 40
REPEATS = 7
BUDGETS = {"findings": 3000, "ready": 3000, "select": 100, "inspector": 300, "step": 400}

_INSPECTED = "name => document.querySelector('#inspector .name')?.textContent !== name"
_STEPPED = "fact => document.querySelector('#inspector .facts div:nth-child(2) dd')?.textContent !== fact"


def measure(browser: Browser, url: str) -> dict[str, float]:
    """Two visits: one of the first page, one of the network."""
    found = {}
    for name, query, shown in (("findings", "", "#page-findings .card"), ("ready", "?node=loss", "#graph [data-node]")):
        context = browser.new_context(viewport={"width": 1400, "height": 820})
        page = context.new_page()
        started = time.perf_counter()
        page.goto(url + query)
        page.wait_for_selector(shown, timeout=60_000)
        found[name] = 1000 * (time.perf_counter() - started)
        if name == "findings":
            context.close()
    page.wait_for_selector("#inspector .name")
    page.wait_for_load_state("networkidle")
    page.locator("#graph").focus()
    found["select"] = _until(page, "ArrowLeft", "() => performance.now() > 0", None)
    page.wait_for_timeout(800)
    name = page.locator("#inspector .name").inner_text()
    found["inspector"] = _until(page, "ArrowLeft", _INSPECTED, name)
    page.wait_for_timeout(800)
    fact = page.locator("#inspector .facts div:nth-child(2) dd").inner_text()
    found["step"] = _until(page, "Shift+ArrowLeft", _STEPPED, fact)
    context.close()
    return found


def _until(page: Page, key: str, condition: str, argument: str | None) -> float:
    started = time.perf_counter()
    page.keyboard.press(key)
    page.wait_for_function(condition, arg=argument, polling="raf")
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    print("| nodes | " + " | ".join(f"{name} (aim {budget})" for name, budget in BUDGETS.items()) + " |")
    print("|---|" + "---|" * len(BUDGETS))
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for blocks in SIZES:
            path = write_trial(Path(folder) / str(blocks), trial="big", steps=STEPS, blocks=blocks)
            with served(path.parent) as url:
                visits = [measure(browser, url) for _ in range(REPEATS)]
            cells = [f"{statistics.median(visit[name] for visit in visits):.0f}" for name in BUDGETS]
            print(f"| {len(open_trial(path).nodes)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
