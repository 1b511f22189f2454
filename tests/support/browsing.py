"""A real headless Chromium on a real server: what the browser's tests share."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from waitress import create_server

from stepscope.viewer.app import make_app
from stepscope.viewer.custom import CustomPage
from stepscope.viewer.server import Address, guard
from stepscope.viewer.source import Source

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WAIT = 90_000
"""Milliseconds to wait for what has to come; most of it comes at once, but the machine may be busy."""
_PAUSE = 50
_BUSY = re.compile(r"\bis-busy\b")
_IDLE = "() => new Promise(done => requestIdleCallback(done, { timeout: 5000 }))"
"""Waits until the page has drawn what it was sent: a busy machine takes longer over that than any fixed pause."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium; the Debian one, or whichever is on the path."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_found(), headless=True, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def lasting_chromium(profile: Path) -> Iterator[BrowserContext]:
    """The same with a profile on disk: from the third time on, pages do without compiling their scripts."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=_found(), headless=True, args=FLAGS
        )
        yield context
        context.close()


def _found() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "no Chromium on the PATH: `make chromium` installs one"
    expect.set_options(timeout=WAIT)
    return found


class Stage:
    """A server at one address, for one dashboard after the other."""

    def __init__(self) -> None:
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._shown: Any = None
        self._server = create_server(self._answer, host="127.0.0.1", port=0, threads=6)
        self._address = Address("127.0.0.1", self._server.effective_port)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def show(self, folder: Path, custom: Path | None = None) -> str:
        """Put up the dashboard on a folder; returns where it is."""
        app = make_app(Source(folder), CustomPage(custom) if custom else None)
        guard(app, self._address)
        self._shown = app.server
        return f"http://{self._address.host}:{self._address.port}/"

    def close(self) -> None:
        self._server.close()
        self._thread.join(timeout=5)

    def _answer(self, environ: Any, start_response: Any) -> Any:
        return self._shown(environ, start_response)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # its socket is closed while it waits
            self._server.run()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The dashboard on a folder, at the address that is yielded."""
    with contextlib.closing(Stage()) as stage:
        yield stage.show(folder)


class Screen:
    """A page that remembers what went wrong on it: console errors, exceptions, requests to other machines."""

    def __init__(self, page: Page, url: str) -> None:
        page.set_default_timeout(WAIT)
        self.page = page
        self.url = url
        self.hosts: set[str] = set()
        self.troubles: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.troubles.append(message.text))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if request.url.startswith(("data:", "blob:")):
            return
        self.hosts.add(request.url.split("/")[2])

    def forget(self) -> None:
        """Let the browser forget what the page had it keep (the theme, widths), so that it is a newcomer's again."""
        if self.page.url.startswith("http"):
            self.page.evaluate("localStorage.clear()")

    def open(self, query: str = "") -> Screen:
        """Go to the page and wait until it has been filled."""
        self.page.goto(self.url + query)
        self.page.wait_for_selector("#badge .badge, #welcome .welcome")
        return self

    def inspect(self, query: str = "?") -> Screen:
        """Go to the page that shows the network, and wait until it has been drawn."""
        self.open(f"{query}&view=inspect")
        self.page.wait_for_selector("#graph [data-node]")
        return self

    def settle(self) -> Screen:
        """Wait until nothing that was asked for is on its way any more."""
        self.page.wait_for_timeout(150)
        self.page.wait_for_load_state("networkidle")
        for _ in range(2):  # an answer may be a reason to ask for more
            expect(self.page.locator("html")).not_to_have_class(_BUSY)
            self.page.wait_for_timeout(125)
            self.page.evaluate(_IDLE)
        expect(self.page.locator("html")).not_to_have_class(_BUSY)
        return self

    def until(self, condition: str) -> Screen:
        """Wait for a condition in JavaScript.

        Not by ``wait_for_function``: what that asks a second time is an ``eval``, which the page's policy forbids.
        """
        for _ in range(WAIT // _PAUSE):
            if self.page.evaluate(condition):
                return self
            self.page.wait_for_timeout(_PAUSE)
        raise AssertionError(f"{condition} was not true after {WAIT / 1000:g} s")

    def select(self, node: str) -> Screen:
        """Click the node's box (or row) in the graph."""
        self.page.locator(f'#graph [data-node="{node}"]').first.click(position={"x": 12, "y": 7})  # above its rows
        expect(self.page.locator("#inspector .name")).to_have_text(node)
        return self.settle()

    def find(self, node: str) -> Screen:
        """Find a node by its name, wherever it is."""
        self.page.keyboard.press("/")
        self.page.keyboard.type(node)
        self.page.get_by_role("option", name=node, exact=True).click()
        expect(self.page.locator("#inspector .name")).to_have_text(node)
        return self.settle()

    def choose(self, control: str, option: str) -> Screen:
        """Pick an option of a select."""
        self.page.locator(f"#{control}").click()
        self.page.get_by_role("option", name=option, exact=True).click()
        return self.settle()

    def number(self, statistic: str) -> str:
        """A statistic as the inspector shows it."""
        row = self.page.locator("#inspector :is(.pair, .stats tr)", has=self.page.get_by_text(statistic, exact=True))
        return row.locator(".num").first.inner_text()

    def fact(self, name: str) -> str:
        """A line of the inspector's facts."""
        row = self.page.locator("#inspector .facts > div", has=self.page.get_by_text(name, exact=True))
        return row.locator("dd").inner_text()
