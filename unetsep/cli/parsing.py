"""Words of the command line as values, and values as the dataclasses that the library takes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import click

from ..audio.formats import CONTAINERS
from ..audio.times import as_seconds

if TYPE_CHECKING:
    from ..library.shards import Shard

Options = TypeVar("Options")


def expanded(words: Sequence[str]) -> list[str]:
    """The words of a command line of Windows, whose shells leave ``~`` and patterns to programs.

    Only ``*`` and ``?`` make a pattern, which no name may hold there. Click would take names for
    more: ``[12]`` for one of two letters, ``$$`` and ``%%`` for one, ``~song`` for a user.

    Returns
    -------
    list of str
        With all that exist in the place of a pattern; one that nothing fits stays as it is.
    """
    from glob import glob

    names = []
    for each in words:
        word = os.path.expanduser(each) if re.match(r"~(?:[\\/]|$)", each) else each  # noqa: PTH111
        drive, path = os.path.splitdrive(word)
        pattern = drive + path.replace("[", "[[]")
        found = sorted(glob(pattern, recursive=True)) if re.search("[*?]", word) else []  # noqa: PTH207
        names += found or [word]
    return names


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


def bitrate(text: str) -> int:
    """Bits per second from ``192k`` or ``192000``; their range is for others to check.

    Raises
    ------
    click.BadParameter
        If it is something else.
    """
    match = re.fullmatch(r"([0-9]+)(k?)", str(text).lower())
    if match is None:
        raise click.BadParameter(f"{text!r} is no bit rate: expected 192k or 192000")
    return int(match[1]) * (1000 if match[2] else 1)


def shard(text: str) -> Shard:
    """A share of the songs from ``3/20``.

    Raises
    ------
    click.BadParameter
        If it is something else.
    """
    from ..library.shards import parse_shard  # which imports numpy: help texts do without

    try:
        return parse_shard(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def without_stem(without: str | None, *, instrumental: bool) -> str | None:
    """The stem that ``--without`` and ``--instrumental`` leave out.

    Raises
    ------
    click.UsageError
        If both are given.
    """
    if instrumental and without:
        raise click.UsageError("choose either --instrumental or --without")
    return "vocals" if instrumental else without


def default_filename(container: str, without: str | None) -> str:
    """The template where none is given: one file needs no folder of its own."""
    from ..paths import TEMPLATE, TOGETHER_TEMPLATE, WITHOUT_TEMPLATE

    if CONTAINERS[container].together:
        return TOGETHER_TEMPLATE
    return WITHOUT_TEMPLATE if without else TEMPLATE


def place(text: str | Path) -> Path | str:
    """A path, or a URL of something that is not on this machine, as it is given.

    Raises
    ------
    click.BadParameter
        If it is empty.
    """
    # Which imports numpy: help texts do without.
    from ..inputs import as_path, is_url, without_scheme

    if isinstance(text, str) and is_url(without_scheme(text)):
        return text
    try:
        path = as_path(text, "it")  # which click says before this
        # Of ./- no more than - is left, which stands for a standard stream.
        return path.absolute() if path == Path("-") and str(text) != "-" else path
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


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
