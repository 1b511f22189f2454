"""The server talks to this machine only, allows no foreign content, and asks strangers for the token."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from stepscope.viewer.app import make_app
from stepscope.viewer.server import Address, free_address, guard
from stepscope.viewer.source import Source


def client(folder: Path, address: Address) -> FlaskClient:
    app = make_app(Source(folder))
    guard(app, address)
    return app.server.test_client()


@pytest.mark.parametrize("host", ["127.0.0.1:8051", "localhost:8051", "[::1]:8051", "localhost"])
def test_own_names_are_served(tmp_path: Path, host: str) -> None:
    response = client(tmp_path, Address("127.0.0.1", 8051)).get("/", headers={"Host": host})
    assert response.status_code == 200
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe-eval" not in policy
    assert "http" not in response.get_data(as_text=True).partition("<body")[0].replace("http-equiv", "")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8051", "127.0.0.1:9999", "localhost.evil:8051"]
)
def test_foreign_names_are_refused(tmp_path: Path, host: str) -> None:
    asked = client(tmp_path, Address("127.0.0.1", 8051))
    for path in ("/", "/_dash-layout", "/_dash-dependencies"):
        assert asked.get(path, headers={"Host": host}).status_code == 403


def test_requests_from_other_sites_are_refused(tmp_path: Path) -> None:
    headers = {"Host": "127.0.0.1:8051", "Origin": "http://evil.example"}
    asked = client(tmp_path, Address("127.0.0.1", 8051))
    assert asked.post("/_dash-update-component", json={}, headers=headers).status_code == 403


def test_other_machines_need_the_token(tmp_path: Path) -> None:
    asked = client(tmp_path, Address("0.0.0.0", 8051, token="secret"))
    assert asked.get("/").status_code == 403
    assert asked.get("/?token=wrong").status_code == 403
    answer = asked.get("/?token=secret")
    assert answer.status_code == 302 and "HttpOnly" in answer.headers["Set-Cookie"]
    assert asked.get("/").status_code == 200


def test_no_file_outside_of_the_assets_is_served(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    asked = client(tmp_path, Address("127.0.0.1", 8051))
    for path in ("/assets/../secret.txt", "/assets/%2e%2e/pyproject.toml", "/assets/..%2f..%2fpyproject.toml"):
        answer = asked.get(path, headers={"Host": "127.0.0.1:8051"})
        assert answer.status_code == 404 or "stepscope" in answer.get_data(as_text=True)[:3000]
        assert b"build-backend" not in answer.data and answer.data != b"secret"


def test_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_address("127.0.0.1", port).port > port
        with pytest.raises(OSError, match="no free port"):
            free_address("127.0.0.1", port, tries=1)


def test_only_foreign_hosts_get_a_token() -> None:
    assert free_address("127.0.0.1", 8100).token == ""
    address = free_address("0.0.0.0", 8100)
    assert len(address.token) > 20 and address.token in address.url


def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(OSError, match=r"no (host|address)"):
        free_address("203.0.113.7", 8100)


def test_the_page_is_small() -> None:
    from stepscope.viewer.layout import page

    layout = page("mine")
    components = list(layout._traverse())
    assert len(components) < 150
    assert len({component.id for component in components if getattr(component, "id", None)}) > 50
