"""Errors as one sentence and an exit code."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import click

from ..locations import is_url
from .interrupts import INTERRUPTED
from .sections import SectionedCommand

VERBOSE = f"{__name__}.verbose"  # in `click.Context.meta`, which a command and its group share


def note_verbose(ctx: click.Context, _: click.Parameter, verbose: bool) -> bool:
    """Callback of ``--verbose``: have `Group` print tracebacks."""
    ctx.meta[VERBOSE] = verbose
    return verbose


class Group(click.Group):
    """Commands whose errors are one sentence, with a traceback only for ``--verbose``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names in the order in which they were added: those for users first."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what precedes the command; a hint if a song follows an option of ``separate``."""
        words = list(args)  # which click consumes
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption:
            if self.commands.keys() & set(words) or not any(map(_is_song, words)):
                raise
            from ..storage import quoted

            ctx.fail(f"a command is missing; did you mean: unetsep separate {quoted(*words)}?")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; a hint if that is a song, or ``list``."""
        word = args[0]
        if self.get_command(ctx, word) is None and not ctx.resilient_parsing:
            from ..storage import quoted

            if is_url(word):
                ctx.fail(f"{word} is not a command; did you mean: unetsep separate {word}?")
            if _is_song(word):
                ctx.fail(
                    f"{word} is not a command; did you mean: unetsep separate {quoted(*args)}?"
                )
        is_list = word == "list" or args[:2] == ["models", "list"]
        if is_list and not ctx.resilient_parsing:
            ctx.fail("list is not a command; did you mean: unetsep models?")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the options; ``--help`` and ``--version`` print immediately."""
        with _as_sentence():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn known errors into messages and exit codes."""
        from ..errors import NO_THREADS, UnetsepError, is_out_of_memory, is_out_of_threads

        _require_working_folder()
        try:
            with _as_sentence():
                return super().invoke(ctx)
        except (UnetsepError, ValueError) as error:
            if ctx.meta.get(VERBOSE):
                traceback.print_exc()
            from .terminal import printable

            raise click.ClickException(printable(str(error))) from error
        except KeyboardInterrupt:
            self._interrupted(ctx)
        except (RuntimeError, MemoryError, ImportError) as error:
            # A lock whose release is interrupted raises RuntimeError: it is no longer held.
            if isinstance(error.__context__, KeyboardInterrupt):
                self._interrupted(ctx)
            if isinstance(error.__context__, SystemExit):
                raise error.__context__ from None
            if is_out_of_threads(error):
                raise click.ClickException(NO_THREADS) from error
            if not is_out_of_memory(error):
                raise
            command = self.commands.get(ctx.invoked_subcommand or "", self)
            has_device = any(each.name == "device" for each in command.params)
            advice = " or use --device cpu" if has_device else ""
            raise click.ClickException(f"out of memory; close other programs{advice}") from error

    @staticmethod
    def _interrupted(ctx: click.Context) -> NoReturn:
        click.echo("Interrupted; unfinished files were removed.", err=True)
        ctx.exit(INTERRUPTED)


def _require_working_folder() -> None:
    """Refuse to start in a removed folder: Intel's MKL would abort the process there."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise click.ClickException(
            "the current folder no longer exists: change to one that does"
        ) from error


class SignalError(click.ClickException):
    """A command ended by a signal.

    Parameters
    ----------
    message
        One sentence.
    number
        Number of the signal; the exit code is 128 + number, as in shells.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # type: ignore[misc]


@contextlib.contextmanager
def _as_sentence() -> Iterator[None]:
    """Turn errors of the system into a sentence; click handles broken pipes."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.strerror is None:
            raise
        place = f" ({error.filename})" if error.filename else ""
        raise click.ClickException(f"{error.strerror}{place}") from error


def _is_song(word: str) -> bool:
    """Whether an argument can be separated: a file, a folder, or an audio file's name."""
    from ..audio.decoder import AUDIO_SUFFIXES

    path = Path(word)
    try:
        return path.suffix.lower() in AUDIO_SUFFIXES or path.exists()
    except OSError:  # a name too long
        return False


class ExtraCommand(SectionedCommand):
    """A command that needs the packages of an extra, and says what to install if one is missing.

    Parameters
    ----------
    extra
        Its name.
    arguments, options
        Of `SectionedCommand`.
    """

    def __init__(self, *arguments: Any, extra: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.extra = extra

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; report a missing package with the command that installs it."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            package, _, module = (error.name or "").partition(".")
            if package == __name__.partition(".")[0]:
                raise  # a bug of unetsep
            # Not of a namespace package, whose name no distribution need have.
            if module and (spec := find_spec(package)) and spec.origin:
                lack = f"which the installed {package} lacks: run pip install --upgrade {package}"
            else:
                from ..errors import how_to_install

                lack = f"which is not installed: run {how_to_install(self.extra)}"
            raise click.ClickException(
                f"unetsep {ctx.info_name} needs {error.name}, {lack}"
            ) from error
