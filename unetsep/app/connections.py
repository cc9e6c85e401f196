"""Connections that must say what they want."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request; what comes after it has limits of its own


class PromptProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, but a connection whose request does not begin in time is closed.

    uvicorn counts connections, and refuses all above a number. So a few hundred that say nothing
    would keep everybody else out for as long as they like.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request, and wait for the rest of its head."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._stop()

    def _wait(self) -> None:
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:  # a request is being answered
            self._stop()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
