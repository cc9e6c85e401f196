from __future__ import annotations

import io
import sys

import pytest

from unetsep.cli.terminal import Lines


@pytest.mark.parametrize(
    ("errors", "line", "written"),
    [("strict", "caf\udce9", b"caf\xe9\n"), ("replace", "caf\u00e9", b"caf?\n")],
)
def test_what_becomes_of_letters_that_do_not_fit_is_the_choice_of_users(
    monkeypatch: pytest.MonkeyPatch, errors: str, line: str, written: bytes
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors, newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    lines = Lines()
    lines.write(line)
    assert lines.failure is None
    assert stream.buffer.getvalue() == written
