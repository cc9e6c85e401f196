"""A form, taken apart while it arrives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from tests.app.serving import form
from unetsep.app.choices import ModelOffer
from unetsep.app.handlers import Handlers
from unetsep.app.jobs import JobLimits, JobQueue, RefusedError
from unetsep.app.process import WorkerProcess
from unetsep.app.uploads import FIELD_BYTES, FormReader

FIELD = b"--mark\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n"
CONTENT = bytes(range(256)) * 3 + b"\r\n--mar\r\n--mark"


def read(body: bytes, piece: int, limit: int = 10_000) -> tuple[FormReader, bytes]:
    reader = FormReader(b"mark", limit)
    for at in range(0, len(body), piece):
        reader.write(body[at : at + piece])
    return reader, b"".join(reader.pending)


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 100_000])
def test_a_form_is_the_same_in_pieces_of_any_size(piece: int) -> None:
    content = CONTENT[:-6]
    _, body = form({"model": "l1", "stems": "ä,b"}, 'a "quoted" ü.mp3', content)
    reader, file = read(body, piece)
    upload = reader.check()
    assert file == content
    assert (upload.fields, upload.bytes) == ({"model": "l1", "stems": "ä,b"}, len(content))
    assert upload.filename == 'a "quoted" ü.mp3'


@pytest.mark.parametrize("piece", [1, 100_000])
def test_a_line_break_before_the_first_boundary_is_ignored(piece: int) -> None:
    _, body = form({"model": "l1"}, "a.mp3", b"song")
    for end in (b"\r\n", b"\n"):
        reader, file = read(end + body, piece)
        assert (reader.check().fields, file) == ({"model": "l1"}, b"song")


def test_a_file_is_refused_at_the_first_byte_over_the_limit() -> None:
    _, body = form({}, "a", bytes(1000))
    assert read(body, 100, limit=1000)[0].check().bytes == 1000
    with pytest.raises(RefusedError, match="larger than") as caught:
        read(body[:-60], 1, limit=900)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (form({}, "a", b"x")[1][:-8], "its end is missing"),
        (b"", "its end is missing"),
        (b"--ma", "its end is missing"),
        (form({}, "a", b"")[1], "^the file is empty$"),
        (FIELD + b"--mark--\r\n", "one file"),
        (form({}, "a", b"x")[1].replace(b'name="file"', b'name="data"'), "in the field 'file'"),
        (
            form({}, "a", bytes(FIELD_BYTES + 1))[1].replace(b"filename=", b"filename*=UTF-8''"),
            "the field 'file' has no filename=",
        ),
        (form({}, "a", b"x")[1][:-10] + b"\r\n" + form({}, "b", b"y")[1], "one file"),
        (form({"model": "x" * (FIELD_BYTES + 1)}, "a", b"x")[1], "a field is longer"),
        (form({f"f{i}": "" for i in range(30)}, "a", b"x")[1], "more than 20 fields"),
        (21 * FIELD + form({}, "a", b"x")[1], "more than 20 fields"),
        (form({}, "a" * 9000, b"x")[1], "header|longer"),
        (b"no form at all", "is not a form.*first line is not its boundary"),
        (b"\r\n--mask\r\n", "first line is not its boundary"),
    ],
)
def test_a_body_that_is_no_form_is_refused_with_a_message(
    body: bytes, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RefusedError, match=sentence) as caught:
        read(body, 50)[0].check()
    assert caught.value.status == 400
    assert not caplog.records


def test_a_song_whose_sender_disconnects_after_its_last_byte_is_not_separated(
    tmp_path: Path,
) -> None:
    kind, body = form({}, "a.wav", b"x")
    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "query_string": b"", "headers": headers}
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def work() -> None:
        queue = JobQueue(tmp_path, WorkerProcess([]), JobLimits())
        handlers = Handlers(queue, {"fast": ModelOffer.of("fast", ["vocals"])})
        with pytest.raises(RefusedError, match="cut off"):
            await handlers.separate(Request(scope, receive))
        assert not queue.jobs

    asyncio.run(work())
    assert list(tmp_path.iterdir()) == []
