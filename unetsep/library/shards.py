"""Shares of a batch for job arrays: which of many commands separates a song."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..inputs import Input


@dataclass(frozen=True)
class Shard:
    """One of several shares, which are disjoint and together hold every song.

    A song's share depends on nothing but its path in the input folder: adding or removing
    songs moves no other song, and all machines agree without communication.

    Parameters
    ----------
    number
        Number of the share, from 1.
    count
        Number of all shares.

    Raises
    ------
    ValueError
        If there is no such share.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard {self} does not exist: expected 1/N to N/N, such as 3/20")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, track: str) -> bool:
        """Whether a song is in this share.

        Parameters
        ----------
        track
            See `Input`. It has no suffix, so that ``a.wav`` and ``a.mp3``, whose stems would
            have the same names, are in one share, where the clash is detected. Blanks and dots at
            the end of a folder or song do not count, since names of stems lose them.
        """
        track = "/".join(map(_as_in_names, track.split("/")))
        digest = hashlib.sha256(track.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def select(self, songs: Iterable[Input]) -> list[Input]:
        """The songs of this share, in their order.

        If nothing can be separated at all, such as a missing folder, every share reports the
        errors: none may look as if it had no work.
        """
        songs = list(songs)
        if all(song.error for song in songs):
            return songs
        return [song for song in songs if self.holds(song.track)]


def _as_in_names(part: str) -> str:
    """A part of a track as it appears in names of stems on all systems; see `unetsep.paths`."""
    return re.sub(r"[\x00-\x1f]", "_", part).rstrip(" .") or "_"


def parse_shard(text: str) -> Shard:
    """Parse a share such as ``3/20``.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a shard: expected 3/20, the third of twenty")
    return Shard(int(match[1]), int(match[2]))
