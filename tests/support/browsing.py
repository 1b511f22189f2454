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

from playwright.sync_api import Browser, Page, expect, sync_playwright
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


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium; the Debian one, or whichever is on the path."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "no Chromium on the PATH: `make chromium` installs one"
    expect.set_options(timeout=WAIT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def served(folder: Path, custom: Path | None = None) -> Iterator[str]:
    """The dashboard on a folder, at the address that is yielded."""
    logging.getLogger("waitress").setLevel(logging.ERROR)
    app = make_app(Source(folder), CustomPage(custom) if custom else None)
    server = create_server(app.server, host="127.0.0.1", port=0, threads=6)
    port = server.effective_port
    guard(app, Address("127.0.0.1", port))
    thread = threading.Thread(target=_run, args=(server,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.close()
    thread.join(timeout=5)


def _run(server: Any) -> None:
    with contextlib.suppress(OSError):  # its socket is closed while it waits
        server.run()


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
