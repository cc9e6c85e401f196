"""Connections that time out unless they send a request, and end with a broken one."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request; its body has limits of its own


class PromptProtocol(H11Protocol):
    """HTTP of uvicorn that closes a connection without a complete request head in time.

    uvicorn refuses connections above a number. A few hundred idle ones could therefore keep
    everyone else out indefinitely.
    """

    _timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first request."""
        super().connection_made(transport)
        self._update_timeout()

    def data_received(self, data: bytes) -> None:
        """Parse a part of a request; the timeout runs until its head is complete."""
        super().data_received(data)
        self._update_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timeout."""
        super().connection_lost(exc)
        self._cancel_timeout()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; if that is a body, end its request.

        uvicorn alone would send a second response, or let the app do so: h11 raises.
        """
        if self.cycle is not None:
            self.cycle.disconnected = True  # drops what the app still sends
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _update_timeout(self) -> None:
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:  # a request is being answered
            self._cancel_timeout()
        elif self._timeout is None:
            self._timeout = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _cancel_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
