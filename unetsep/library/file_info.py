"""What stores tell of a file: its version, time, size and checksums."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ..storage import file_digest


def version_of(info: Mapping[str, Any]) -> str | None:
    """A value that changes with the content; None if the store has none."""
    keys = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "mtime", "updated")
    return next((str(info[key]) for key in (*keys, "created") if info.get(key)), None)


def modified(info: Mapping[str, Any]) -> float | None:
    """Time of a file's last change, in seconds since 1970."""
    keys = ("LastModified", "Last-Modified", "mtime", "updated", "last_modified", "created")
    value = next((info[key] for key in keys if info.get(key)), None)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if isinstance(value, str):
            iso = re.match(r"\d{4}-\d\d-\d\d", value)
            value = (
                datetime.fromisoformat(value.replace("Z", "+00:00"))
                if iso
                else parsedate_to_datetime(value)
            )
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
            return aware.timestamp()
        return None if value is None else float(value)
    return None


def check_download(path: Path, info: Mapping[str, Any]) -> None:
    """Compare a download with its store's size and checksum, if these are known.

    Raises
    ------
    OSError
        If they differ.
    """
    size, expected = path.stat().st_size, info.get("size")
    if expected is not None and size != expected:
        raise OSError(f"{size} bytes arrived of {expected}")
    for name, value in _digests(info):
        with path.open("rb") as file:
            digest = file_digest(file, name)
        if digest != value.hex():
            raise OSError(f"its {name.upper()} differs from the server's")


def _digests(info: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Checksums of a whole file, from Google's store and HTTP; an ETag may not be one."""
    pairs = [("md5", str(info.get(name) or "")) for name in ("md5Hash", "Content-MD5")]
    for part in str(info.get("Digest") or "").split(","):
        name, _, value = part.strip().partition("=")
        algorithm = {"sha-256": "sha256", "sha-512": "sha512", "md5": "md5"}.get(name.lower())
        if algorithm:
            pairs.append((algorithm, value))
    for name, value in pairs:
        with contextlib.suppress(binascii.Error, ValueError):
            if value:
                yield name, base64.b64decode(value, validate=True)
