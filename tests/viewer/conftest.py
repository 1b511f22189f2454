"""Recordings and a browser for the viewer's tests, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from stepscope.examples.find_the_bug import run
from stepscope.store import Group, open_group
from support.browsing import Screen, chromium, served
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
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def screen_of(browser: Browser) -> Iterator[Callable[..., Screen]]:
    """Opens the dashboard on a folder; fails the test if anything went wrong in the browser."""
    opened: list[Screen] = []
    servers = []

    def start(folder: Path, *, width: int = 1280, height: int = 800, custom: Path | None = None) -> Screen:
        server = served(folder, custom)
        url = server.__enter__()
        servers.append(server)
        context = browser.new_context(viewport={"width": width, "height": height})
        opened.append(Screen(context.new_page(), url))
        return opened[-1]

    yield start
    for screen in opened:
        screen.page.context.close()
    for server in servers:
        server.__exit__(None, None, None)
    for screen in opened:
        assert screen.troubles == []
        assert screen.hosts <= {screen.url.split("/")[2]}
