"""Streaming a song from a request to the disk, with limits that apply while it arrives."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from .jobs import JobLimits, RefusedError, disk_errors

# It warns of each broken form, as its exception does, which becomes the client's answer.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

PIECE = 1 << 20  # bytes that are buffered before they are written
MAX_FIELDS, FIELD_BYTES = 20, 4096
OVERHEAD = 64 * 1024  # bytes of fields and boundaries around the file


@dataclass
class Upload:
    """The form of one request.

    Parameters
    ----------
    fields
        Fields of the form except the file.
    filename
        As the client sent it, so untrusted.
    bytes
        Size of the file.
    """

    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    bytes: int = 0


def too_large(limit: int) -> RefusedError:
    """The refusal of a file that is too large."""
    return RefusedError(f"the file is larger than {limit / 1e6:g} MB", 413, "size")


def cut_off() -> RefusedError:
    """The refusal of an upload whose client has disconnected."""
    return RefusedError("the upload was cut off", 400, "cut")


class FormReader:
    """Parses a multipart form while it arrives.

    Parameters
    ----------
    boundary
        Separator of the parts.
    limit
        Largest size of the file in bytes.
    """

    def __init__(self, boundary: bytes, limit: int) -> None:
        self.upload = Upload()
        self.complete = False
        self.pending: list[bytes] = []  # data of the file, not yet written
        self._limit = limit
        self._parts, self._files = 0, 0
        self._name, self._value = b"", b""
        self._header = [b"", b""]  # name and value
        self._is_file = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": functools.partial(self._header_data, 0),
                "on_header_value": functools.partial(self._header_data, 1),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._complete,
            },
        )

    def write(self, data: bytes) -> None:
        """Parse the next bytes of the body.

        Raises
        ------
        RefusedError
            If it is not a form, or too large.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            reason = str(error) if self._parts else "its first line is not its boundary"
            raise _malformed(reason) from error

    def _begin(self) -> None:
        self._name, self._value, self._is_file = b"", b"", False
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise _malformed(f"it has more than {MAX_FIELDS} fields")

    def _header_data(self, part: int, data: bytes, start: int, end: int) -> None:
        self._header[part] += data[start:end]
        if sum(map(len, self._header)) > FIELD_BYTES:
            raise _malformed(f"a header is longer than {FIELD_BYTES} bytes")

    def _header_end(self) -> None:
        name, value = self._header
        self._header = [b"", b""]
        if name.lower() != b"content-disposition":
            return
        _, options = parse_options_header(value)
        self._name = options.get(b"name", b"")
        if b"filename" in options:
            self._is_file = True
            self.upload.filename = options[b"filename"].decode(errors="replace")

    def _headers_finished(self) -> None:
        if not self._is_file:
            if self._name == b"file":  # filename*= is not for forms, by RFC 7578
                raise _malformed("the field 'file' has no filename=")
            return
        self._files += 1
        if self._name != b"file" or self._files > 1:
            raise _malformed("it must hold one file, in the field 'file'")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.upload.bytes += end - start
            if self.upload.bytes > self._limit:
                raise too_large(self._limit)
            self.pending.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > FIELD_BYTES:
            raise _malformed(f"a field is longer than {FIELD_BYTES} bytes")

    def _end(self) -> None:
        if not self._is_file:
            name = self._name.decode(errors="replace")
            self.upload.fields[name] = self._value.decode(errors="replace")

    def _complete(self) -> None:
        self.complete = True

    def check(self) -> Upload:
        """The complete form.

        Raises
        ------
        RefusedError
            If its end or the file is missing.
        """
        if not self.complete:
            raise _malformed("its end is missing")
        if not self._files:
            raise _malformed("it must hold one file, in the field 'file'")
        if not self.upload.bytes:
            raise RefusedError("the file is empty", 400, "form")
        return self.upload


def _malformed(reason: str) -> RefusedError:
    return RefusedError(
        f"the upload is not a form (multipart/form-data) as expected: {reason}", 400, "form"
    )


def announced_bytes(request: Request, limit: int) -> int:
    """Size of an upload by its Content-Length; the largest allowed size without one.

    Raises
    ------
    RefusedError
        If it is too large.
    """
    text = request.headers.get("content-length", "")
    length = int(text) if text.isdigit() else limit
    if length > limit + OVERHEAD:
        raise too_large(limit)
    return min(length, limit)


async def receive(request: Request, path: Path, limits: JobLimits) -> Upload:
    """Write the file of a form to the disk while it arrives.

    Parameters
    ----------
    request
        Its body must be unread.
    path
        Path of a new file.
    limits
        Limits on bytes and seconds.

    Raises
    ------
    RefusedError
        If it is too large, too slow, cut off or not a form; a partial file may remain.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise _malformed("send it like curl -F file=@song.mp3")
    try:
        reader = FormReader(options[b"boundary"], limits.upload_bytes)
    except FormParserError as error:
        raise _malformed(str(error)) from error
    with disk_errors("the upload"):
        try:
            with path.open("xb") as file:
                await _copy(request.stream(), reader, file, limits)
        except ClientDisconnect as error:
            raise cut_off() from error
        except asyncio.TimeoutError as error:  # which is an OSError since Python 3.11
            raise RefusedError("the upload was too slow and timed out", 408, "slow") from error
    return reader.check()


async def _copy(
    body: AsyncIterator[bytes], reader: FormReader, file: BinaryIO, limits: JobLimits
) -> None:
    """Write the body to disk, with at most one piece of it in memory."""
    end = time.monotonic() + limits.seconds
    total, buffered = 0, 0
    while True:
        timeout = max(0.0, min(limits.silence, end - time.monotonic()))
        try:
            chunk = await asyncio.wait_for(anext(body), timeout)
        except StopAsyncIteration:
            break
        total += len(chunk)
        if total > limits.upload_bytes + OVERHEAD:
            raise too_large(limits.upload_bytes)
        reader.write(chunk)
        buffered += len(chunk)
        if buffered >= PIECE:
            await _flush(reader, file)
            buffered = 0
    await _flush(reader, file)


async def _flush(reader: FormReader, file: BinaryIO) -> None:
    data = b"".join(reader.pending)
    reader.pending.clear()
    await asyncio.to_thread(file.write, data)
