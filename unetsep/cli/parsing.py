"""Arguments of the command line as values, and values as the dataclasses of the library."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import click

from ..audio.formats import CONTAINERS, as_bits
from ..audio.times import as_seconds
from ..locations import as_path, is_url, without_scheme

if TYPE_CHECKING:
    from ..library.shards import Shard

Options = TypeVar("Options")
Value = TypeVar("Value")


def expanded(arguments: Sequence[str]) -> list[str]:
    """Arguments with ``~`` and patterns expanded, which shells of Windows leave to programs.

    Only ``*`` and ``?`` are special, since no file name can contain them there. Click's own
    expansion would misread names: ``[12]`` as one of two characters, ``$$`` and ``%%`` as one
    character, ``~song`` as a user.

    Returns
    -------
    list of str
        With all matching paths in the place of a pattern; a pattern without a match stays.
    """
    from glob import glob

    names = []
    for each in arguments:
        name = os.path.expanduser(each) if re.match(r"~(?:[\\/]|$)", each) else each  # noqa: PTH111
        drive, path = os.path.splitdrive(name)
        pattern = drive + path.replace("[", "[[]")
        matches = sorted(glob(pattern, recursive=True)) if re.search("[*?]", name) else []  # noqa: PTH207
        names += matches or [name]
    return names


class DeviceName(click.Choice):  # type: ignore[type-arg]  # click before 8.2 has no argument
    """A choice of devices, or one of several GPUs by its number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is; whether there is such a GPU shows when it is used."""
        if re.fullmatch("(cuda|mps):[0-9]+", str(value)):
            return str(value)
        return str(super().convert(value, param, ctx))


class PathName(click.Path):
    """A path; no text stands for the current folder but its name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, unless it is empty."""
        if value == "":  # as a shell's unset variable gives; Path("") is Path(".")
            self.fail("it must be a path, got ''", param, ctx)
        return super().convert(value, param, ctx)


def times(factor: float, kind: Callable[[float], float] = float) -> Callable[..., float]:
    """A callback of an option: its value times a factor, since users think in larger units."""

    def scaled(_: click.Context, __: click.Parameter, value: float) -> float:
        if not math.isfinite(value * factor):
            raise click.BadParameter(f"expected a smaller number, got {value:g}")
        return kind(value * factor)

    return scaled


def names(text: str) -> tuple[str, ...]:
    """``vocals, drums`` as a tuple of names."""
    return tuple(part.strip() for part in text.split(","))


def parameter_type(parse: Callable[[Any], Value]) -> Callable[[Any], Value]:
    """A type of parameters that repeats the message of a `ValueError`, which click alone hides."""

    @functools.wraps(parse)
    def parsed(text: Any) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return parsed


seconds = parameter_type(as_seconds)
bitrate = parameter_type(as_bits)


@parameter_type
def shard(text: str) -> Shard:
    """A share of the songs from ``3/20``."""
    from ..library.shards import parse_shard  # imports numpy, which help texts do not need

    return parse_shard(text)


def without_stem(options: Mapping[str, Any]) -> str | None:
    """The stem that ``--without`` and ``--instrumental`` leave out.

    Parameters
    ----------
    options
        Of ``separate``, by name.

    Raises
    ------
    click.UsageError
        If several options choose stems.
    """
    names = ("instrumental", "without", "stems", "two_stems")
    given = [f"--{name}".replace("_", "-") for name in names if options[name]]
    if len(given) > 1:
        raise click.UsageError(f"choose either {' or '.join(given)}")
    return "vocals" if options["instrumental"] else options["without"]


def default_filename(container: str, without: str | None) -> str:
    """The default template of file names: a single file needs no folder of its own."""
    from ..paths import TEMPLATE, TOGETHER_TEMPLATE, WITHOUT_TEMPLATE

    if CONTAINERS[container].together:
        return TOGETHER_TEMPLATE
    return WITHOUT_TEMPLATE if without else TEMPLATE


@parameter_type
def path_or_url(text: str | Path) -> Path | str:
    """A path, or a URL that is not of this machine, unchanged."""
    if isinstance(text, str) and is_url(without_scheme(text)):
        return text
    path = as_path(text, "it")  # after the name of the option, which click prints
    # Path("./-") becomes "-", which would stand for a standard stream.
    return path.absolute() if path == Path("-") and str(text) != "-" else path


def build(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Build a dataclass from options named like its fields; nested dataclasses likewise.

    Parameters
    ----------
    kind
        The dataclass.
    values
        Options by name, as click passes them. Those without a field are ignored.
    """
    hints = get_type_hints(kind)
    parts = {
        name: build(hint, values)
        for name, hint in hints.items()
        if isinstance(hint, type) and is_dataclass(hint)
    }
    fields = {name: values[name] for name in hints.keys() & values.keys() - parts.keys()}
    return kind(**fields, **parts)
