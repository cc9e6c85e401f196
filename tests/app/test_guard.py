"""Requests from elsewhere are refused, by their headers alone."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from unetsep.app.guard import Guard, host_name, is_loopback

HERE = "127.0.0.1:8421"


def ask(
    method: str, headers: dict[str, str], host: str = "127.0.0.1"
) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer; 200 is what lies behind the guard."""
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        sent.append(message)

    refused: list[str] = []
    guard = Guard(inner, host, ["Songs.example.org"], refused.append)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "headers": raw}
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    header = "origin" if headers.get("host") == HERE else "host"
    assert refused == ([header] if sent[0]["status"] == 403 else [])
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}


@pytest.mark.parametrize(
    "headers",
    [
        {"host": HERE},
        {"host": "LOCALHOST:8421"},
        {"host": "[::1]:8421"},
        {"host": "songs.example.org"},
        {"host": HERE, "origin": f"http://{HERE}"},
        {"host": "songs.example.org:443", "origin": "https://songs.example.org"},
        {"host": "Songs.Example.org", "origin": "http://songs.example.org"},
        {"host": HERE, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
        {"host": HERE, "sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    ],
)
def test_requests_from_the_app_and_from_programs_are_allowed(
    headers: dict[str, str],
) -> None:
    assert ask("POST", headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "evil.example"},  # DNS rebinding: a name of somebody else for this machine
        {"host": "127.0.0.1.evil.example:8421"},
        {"host": "localhost.evil.example"},
        {"host": "192.168.0.7:8421"},  # listens at 127.0.0.1 alone
        {"host": HERE, "origin": "https://evil.example"},
        {"host": HERE, "origin": "null"},
        {"host": HERE, "origin": "http://127.0.0.1:3000"},
        {"host": HERE, "origin": "http://localhost:8421"},
        {"host": HERE, "origin": f"http://{HERE}.evil.example"},
        {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"host": HERE, "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors",
         "sec-fetch-dest": "document"},
        {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate",
         "sec-fetch-dest": "iframe"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_requests_from_elsewhere_are_refused(method: str, headers: dict[str, str]) -> None:
    assert ask(method, headers)[0] == 403


def test_a_link_from_another_site_can_get_but_not_post() -> None:
    link = {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate",
            "sec-fetch-dest": "document"}  # fmt: skip
    assert ask("GET", link)[0] == 200
    assert ask("POST", link)[0] == 403


def test_an_app_for_other_machines_accepts_addresses_and_no_foreign_names() -> None:
    for host in ("0.0.0.0", "192.168.0.7"):
        assert ask("GET", {"host": "192.168.0.7:8421"}, host)[0] == 200
        assert ask("GET", {"host": "evil.example:8421"}, host)[0] == 403
    assert ask("GET", {"host": "studio:8421"}, "Studio")[0] == 200


@pytest.mark.parametrize("name", ["Laptop", "laptop.example.org", "Laptop.local"])
def test_an_app_for_other_machines_answers_to_the_names_of_its_machine(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    for own in (name, "laptop:8421", "LAPTOP.local:8421"):
        headers = {"host": own, "origin": f"http://{own}"}
        assert ask("POST", headers, "0.0.0.0")[0] == 200
        assert ask("POST", headers)[0] == 403
    for foreign in ("laptop.evil.example", "evil.local", "local", ".local", "xlaptop", ""):
        assert ask("GET", {"host": foreign}, "0.0.0.0")[0] == 403


def test_a_machine_without_a_name_answers_to_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    for name in ("", ".local", "laptop"):
        assert ask("GET", {"host": name}, "0.0.0.0")[0] == 403


@pytest.mark.parametrize("headers", [{"host": HERE}, {"host": "evil.example"}])
def test_every_answer_forbids_foreign_scripts_frames_and_caches(headers: dict[str, str]) -> None:
    _, sent = ask("GET", headers)
    assert "default-src 'self'" in sent["content-security-policy"]
    assert "frame-ancestors 'none'" in sent["content-security-policy"]
    assert sent["x-content-type-options"] == "nosniff"
    assert sent["cache-control"] == "no-store"
    assert not [name for name in sent if name.startswith("access-control")]


def test_a_refused_connection_is_closed_as_its_body_is_not_read() -> None:
    assert ask("POST", {"host": "evil.example"})[1]["connection"] == "close"
    assert "connection" not in ask("POST", {"host": HERE})[1]


def test_what_is_no_request_passes_the_guard() -> None:
    """When the app starts, for instance."""
    passed: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        passed.append((scope, receive, send))

    asyncio.run(Guard(inner, "::1", [], passed.clear)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert passed == [({"type": "lifespan"}, None, None)]


def test_hosts_are_parsed_and_loopback_is_recognised() -> None:
    assert host_name("[::1]:80") == "::1"
    assert host_name("[FE80::1]") == "fe80::1"
    assert host_name("Example.org:80") == "example.org"
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
