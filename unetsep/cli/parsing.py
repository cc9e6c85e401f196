"""Words of the command line as values, and values as the dataclasses that the library takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import click

from ..audio.times import as_seconds

Options = TypeVar("Options")

# Of two letters at least: C:/song.wav is no URL.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def names(text: str) -> tuple[str, ...]:
    """``vocals, drums`` as a tuple of names."""
    return tuple(part.strip() for part in text.split(","))


def seconds(text: str | float) -> float:
    """Seconds from ``90``, ``1:30`` or ``1:02:03``; their range is for others to check.

    Raises
    ------
    click.BadParameter
        If it is something else.
    """
    try:
        return as_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def song_path(text: str) -> Path:
    """A path to separate.

    Raises
    ------
    click.BadParameter
        If it is a URL, which would lose a slash as a path.
    """
    if is_url(text):
        raise click.BadParameter(f"{text} is a URL: download it first")
    return Path(text)


def is_url(text: str) -> bool:
    """Whether a text begins as URLs do."""
    return URL.match(text) is not None


def build(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """A dataclass from options of the same names; fields that are dataclasses are built alike.

    Parameters
    ----------
    kind
        The dataclass.
    values
        Options by name, as click gives them. What ``kind`` has no field for is left out.
    """
    hints = get_type_hints(kind)
    parts = {
        name: build(hint, values)
        for name, hint in hints.items()
        if isinstance(hint, type) and is_dataclass(hint)
    }
    own = {name: values[name] for name in hints.keys() & values.keys() - parts.keys()}
    return kind(**own, **parts)
