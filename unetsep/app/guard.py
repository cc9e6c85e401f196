"""Refusal of cross-site requests.

Any page on the web can make its reader's browser send requests to this machine. It cannot hide
their origin, which the browser states in ``Origin`` or ``Sec-Fetch-Site``. By DNS rebinding a
page can let its own name resolve to this machine; then ``Host`` holds that name. So a request
must name this app in ``Host``, and must come from a page of this app, or from no page.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
COMMON_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; "
    "frame-src 'self' blob:",  # Firefox takes the mix that the player saves for a page of its frame
}


def host_name(netloc: str) -> str:
    """The name or address in ``name:port``, without brackets."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0].lower()
    return netloc.partition(":")[0].lower()


def _plain(netloc: str) -> str:
    """The name without a default port, which browsers omit."""
    return netloc.lower().removesuffix(":80").removesuffix(":443")


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def own_names() -> set[str]:
    """The names of this machine in its network, where ``.local`` is that of multicast DNS."""
    name = socket.gethostname().lower()
    label = name.partition(".")[0]  # some systems include a domain
    return {name, label, f"{label}.local"} if label else set()


class Guard:
    """Lets only requests through that name this app and do not come from other sites.

    Parameters
    ----------
    app
        The app that accepted requests reach.
    host
        Address that the app listens on. Unless only this machine can reach it, requests may also
        use any IP address and `own_names`.
    names
        Further names under which it may be reached.
    refused
        Called for each request that is refused, with ``host`` or ``origin``, the header at fault.
    """

    def __init__(
        self, app: ASGIApp, host: str, names: Iterable[str], refused: Callable[[str], object]
    ) -> None:
        self._app, self._refused = app, refused
        self._names = {*LOOPBACK, host.lower(), *(name.lower() for name in names)}
        # An IP address cannot be rebound: a request that names one was sent to it.
        self._any_address = not is_loopback(host)
        if self._any_address:  # whoever can forge these names in the network can also reach the app
            self._names |= own_names()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it before its body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = self._problem(scope["method"], Headers(scope=scope))
        if problem:
            header, text = problem
            self._refused(header)
            answer = JSONResponse({"error": text}, 403, headers={"connection": "close"})
            await answer(scope, receive, _with_headers(send))
        else:
            await self._app(scope, receive, _with_headers(send))

    def _problem(self, method: str, headers: Headers) -> tuple[str, str] | None:
        """The header for which a request is refused, and why; or None."""
        netloc = headers.get("host", "")
        name = host_name(netloc)
        if name not in self._names and not (self._any_address and is_address(name)):
            return "host", f"this app is not called {name!r}: see --allow-host"
        origin = headers.get("origin")
        if origin is not None and _plain(origin.partition("://")[2]) != _plain(netloc):
            return "origin", f"requests from pages of {origin!r} are refused"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            # Other sites may link to the app, but neither embed it nor post to it.
            if method != "GET" or headers.get("sec-fetch-mode") != "navigate":
                return "origin", "requests from pages of other sites are refused"
            if headers.get("sec-fetch-dest") != "document":
                return "origin", "pages of other sites may not show this one inside theirs"
        return None


def _with_headers(send: Send) -> Send:
    """Add the common headers to a response, unless it sets its own."""

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in COMMON_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with
