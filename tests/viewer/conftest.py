"""Recordings and a browser for the viewer's tests, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from stepscope.examples.find_the_bug import run
from stepscope.store import Group, open_group
from support.browsing import Screen, Stage, lasting_chromium
from support.synthetic import write_trial


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's two trials, trained for a short while."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    run(folder, 200)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic trials: a healthy one, and one in which NaN appear at step 200."""
    path = tmp_path_factory.mktemp("synthetic") / "group"
    write_trial(path, trial="healthy", steps=30)
    write_trial(path, trial="sick", steps=30, nan_from=200, dead_from=100, state="failed", started=1_760_001_000.0)
    return path


@pytest.fixture
def group(folder: Path) -> Group:
    return open_group(folder)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with lasting_chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    with closing(Stage()) as stage:
        yield stage


@pytest.fixture
def screen_of(browser: BrowserContext, stage: Stage) -> Iterator[Callable[..., Screen]]:
    """Opens the dashboard on a folder; fails the test if anything went wrong in the browser."""
    kept = len(browser.pages)
    shown: set[tuple[Path, Path | None]] = set()
    opened: list[Screen] = []

    def start(folder: Path, *, width: int = 1280, height: int = 800, custom: Path | None = None) -> Screen:
        shown.add((folder, custom))
        assert len(shown) == 1, "one address shows one dashboard at a time"
        page = browser.new_page()
        page.set_viewport_size({"width": width, "height": height})
        opened.append(Screen(page, stage.show(folder, custom)))
        return opened[-1]

    yield start
    if opened:
        opened[0].forget()
    browser.clear_permissions()
    for page in browser.pages[kept:]:
        page.close()
    for screen in opened:
        assert screen.troubles == []
        assert screen.hosts <= {screen.url.split("/")[2]}
