"""From a folder to a page in the browser."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import webbrowser
from pathlib import Path


def open_view(folder: Path | str, host: str, port: int, *, browser: bool, custom: Path | None, query: str = "") -> int:
    """Serve the dashboard until interrupted; returns the exit code.

    Args:
        folder: the folder or address of a group of trials, or of a single one.
        host, port: where to listen; the next free port is taken.
        browser: whether to open one.
        custom: a file with the user's own page.
        query: what to open of it, such as ``"?trial=bugged"``; the newest trial unless given.

    Raises:
        ValueError: the viewer's packages are missing, or there is no such file.
        OSError: no free port.
    """
    try:
        from stepscope.viewer.app import make_app
        from stepscope.viewer.custom import CustomPage
        from stepscope.viewer.server import free_address, guard, serve
        from stepscope.viewer.source import Source
    except ImportError as error:
        raise ValueError(f'the dashboard needs more packages ({error}); pip install "stepscope[viewer]"') from error

    source = Source(folder)
    address = free_address(host, port)
    app = make_app(source, CustomPage(custom) if custom is not None else None)
    guard(app, address)
    url = address.url if address.token else address.url + query  # with a token, a redirect would lose it
    print(f"stepscope: {source.name} is at {url} (Ctrl+C ends)", file=sys.stderr, flush=True)
    if browser and _has_screen():
        threading.Timer(0.6, webbrowser.open, (url,)).start()
    elif "SSH_CONNECTION" in os.environ:
        port = address.port
        print(f"stepscope: from your own machine: ssh -L {port}:127.0.0.1:{port} <this machine>", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):
        serve(app, address)
    return 0


def _has_screen() -> bool:
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
