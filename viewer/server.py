"""Serves the page: on this machine only, unless told otherwise, and never to a stranger."""

from __future__ import annotations

import hmac
import logging
import secrets
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dash import Dash
from flask import Flask, Response, abort, redirect, request

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_COOKIE = "stepscope-token"
_THREADS = 6


@dataclass(frozen=True)
class Address:
    """Where the page is served. ``token`` is asked for unless the host is this machine's own."""

    host: str
    port: int
    token: str = ""

    @property
    def url(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        if self.host in ("0.0.0.0", "::"):
            shown = socket.gethostname()
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def free_address(host: str, port: int, *, tries: int = 50) -> Address:
    """The first free port from ``port`` on.

    Raises:
        OSError: there is no such host, or no free port.
    """
    for candidate in range(port, port + tries):
        if _is_free(host, candidate):
            return Address(host, candidate, "" if host in LOOPBACK else secrets.token_urlsafe(24))
    raise OSError(f"no free port between {port} and {port + tries - 1} on {host}; give another one with --port")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            raise OSError(f"there is no host {host!r} on this machine") from error
        except OSError as error:
            if error.errno == 99:  # not an address of this machine
                raise OSError(f"{host} is no address of this machine; give one that is, or 0.0.0.0 for all") from error
            return False
    return True


def guard(app: Dash, address: Address) -> None:
    """Refuse foreign Host and Origin headers (DNS rebinding), ask for the token, and allow no foreign content."""
    server: Flask = app.server
    policy = content_policy(app)

    @server.before_request
    def check() -> Any:
        if address.token:
            return _check_token(address.token)
        if not _is_own(request.host, address.port):
            abort(403, f"This page is served to this machine only, not to {request.host!r}.")
        origin = request.headers.get("Origin")
        if origin and not _is_own(urlsplit(origin).netloc, address.port):
            abort(403, "Requests from other sites are refused.")
        return None

    @server.after_request
    def headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def content_policy(app: Dash) -> str:
    """The Content-Security-Policy: everything from here; scripts only those that Dash itself wrote into the page."""
    hashes = " ".join(f"'{given.strip(chr(39))}'" for given in app.csp_hashes())
    return (
        f"default-src 'self'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    )


def _is_own(host: str, port: int) -> bool:
    name, _, given = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not name:
        name, given = given, ""
    return name.strip("[]") in LOOPBACK and given in ("", str(port))


def _check_token(token: str) -> Any:
    given = request.args.get("token", "")
    if given and hmac.compare_digest(given, token):
        response = redirect(request.path)
        response.set_cookie(_COOKIE, token, httponly=True, samesite="Strict")
        return response
    if not hmac.compare_digest(request.cookies.get(_COOKIE, ""), token):
        abort(403, "Open the whole address that stepscope view printed: it carries the token.")
    return None


def serve(app: Dash, address: Address) -> None:
    """Serve until interrupted."""
    import waitress

    logging.getLogger("waitress").setLevel(logging.ERROR)
    waitress.serve(app.server, host=address.host, port=address.port, threads=_THREADS, ident=None)
