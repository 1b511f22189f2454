"""Takes the pictures of README.md and docs/ again: ``python scripts/screenshots.py runs/demo``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from playwright.sync_api import Browser  # noqa: E402

from support.browsing import Screen, chromium, served  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1400, "height": 820}


def main(folder: Path) -> None:
    if not (folder / "bugged").is_dir():
        raise SystemExit(f"there is no recording of the demo in {folder}; make one with: make demo NO_VIEW=1")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with served(folder) as url, chromium() as browser:
        walk(open_screen(browser, url))
        pages(open_screen(browser, url))


def open_screen(browser: Browser, url: str) -> Screen:
    context = browser.new_context(viewport=SIZE, device_scale_factor=1)
    return Screen(context.new_page(), url)


def walk(screen: Screen) -> None:
    """The tutorial, picture by picture."""
    screen.open("?trial=bugged").settle()
    screen.page.wait_for_selector("#page-findings .card .spark")
    screen.page.wait_for_selector("#page-findings .beside .overview")  # the hints come later
    take(screen, "tutorial-1-findings")
    screen.inspect("?trial=bugged").settle()
    take(screen, "tutorial-2-network")
    screen.select("loss")
    take(screen, "tutorial-3-loss")
    screen.page.locator("#inspector .neighbours .link", has_text="target").click()
    screen.settle()
    take(screen, "tutorial-4-target")
    screen.select("answer")
    take(screen, "tutorial-5-answer")
    screen.choose("compare", "fixed")
    screen.page.locator("#inspector .link.stat", has_text="min").first.click()
    screen.settle().choose("kind", "length 8")
    screen.settle()
    take(screen, "tutorial-6-compared")


def pages(screen: Screen) -> None:
    """The picture on top of the README, and one of each other page that has much to see."""
    screen.inspect("?trial=bugged&compare=fixed&node=subnet_out&color=std").settle()
    take(screen, "dashboard")
    screen.page.locator("#theme-switch").click()
    screen.settle()
    take(screen, "dashboard-dark")
    screen.page.locator("#theme-switch").click()
    screen.open("?trial=bugged&compare=fixed&view=steps&mode=heat").settle()
    take(screen, "over-steps")


def take(screen: Screen, name: str) -> None:
    screen.page.mouse.move(700, 160)
    screen.settle()
    screen.page.screenshot(path=str(IMAGES / f"{name}.png"))
    print(f"docs/images/{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
