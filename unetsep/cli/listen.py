"""What ``listen`` does, and ``separate`` with ``--player`` and ``--plots`` at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from ..audio.libsndfile import hide_decoder_chatter
from ..errors import AudioError, UnetsepError
from ..inputs import Input
from ..listen.page import write_page
from ..listen.plots import is_plot, plot_song, require_matplotlib
from ..listen.songs import Song, find_songs, order_stems
from .terminal import Messages, can_draw, printable

if TYPE_CHECKING:
    from ..files import SeparationReport


def run_listen(*, folder: Path, plots: bool, quiet: bool) -> bool:
    """The ``listen`` command.

    Returns
    -------
    bool
        Whether all songs could be read and drawn.
    """
    if plots:
        require_matplotlib()
    hide_decoder_chatter()
    console = Messages(quiet=quiet)
    songs = find_songs(folder)
    failed = show_page(songs, folder, console)
    all_drawn = not plots or show_plots([song for song in songs if song not in failed], console)
    return all_drawn and not failed


def show_page(songs: Sequence[Song], folder: Path, console: Console) -> list[Song]:
    """Write the page of some songs and print its path; return songs that could not be read."""
    failed: list[tuple[Song, AudioError]] = []
    with Progress(console=console, transient=True, disable=not can_draw(console)) as bar:
        task = bar.add_task("page", total=len(songs))

        def progress(song: Song, share: float) -> None:
            bar.update(
                task, description=escape(printable(song.name)), completed=songs.index(song) + share
            )

        def leave_out(song: Song, error: AudioError) -> None:
            failed.append((song, error))

        page = write_page(folder, songs, progress, leave_out)
    for song, error in failed:
        Messages().print(f"Error: {song.name} is not on the page: {error}")
    console.print(f"{page}: open it in a browser")
    return [song for song, _ in failed]


def show_plots(songs: Iterable[Song], console: Console) -> bool:
    """Draw each song, once per model, beside its stems; whether all could be drawn."""
    pictures: set[Path] = set()
    complete = True
    for song in songs:
        for model, stems in song.models.items():
            path = _picture(song, stems)
            if path in pictures:  # several models write into one folder
                path = _picture(song, stems, f"-{model.replace('/', '-')}")
            try:
                if path.exists() and not is_plot(path):
                    raise UnetsepError(
                        f"{path} was not drawn by unetsep, so it was not replaced: move it away"
                    )
                plot_song(stems, path, f"{song.name}, {model}" if model else song.name)
            except (UnetsepError, OSError) as error:
                Messages().print(f"Error: {error}")
                complete = False
                continue
            pictures.add(path)
            console.print(f"{path}: pictures of {', '.join(stems)}")
    return complete


def _picture(song: Song, stems: Mapping[str, Path], ending: str = "") -> Path:
    """Path of a song's picture; named after the stem where that is a single file of the song."""
    first, *others = stems.values()
    name = song.name.split("/")[-1]
    if not others and first.stem.startswith(name):
        name = first.stem
    return first.parent / f"{name}{ending}-spectrograms.png"


def show_separated(
    reports: Iterable[tuple[Input, Sequence[SeparationReport]]],
    console: Console,
    *,
    player: bool,
    plots: bool,
) -> bool:
    """Write the page and the pictures of songs that are separated.

    Parameters
    ----------
    reports
        Inputs and their reports, one for each model.
    console
        Where paths are printed.
    player, plots
        Whether to write the page, the pictures.

    Returns
    -------
    bool
        Whether all songs are on the page and drawn, or neither was requested.
    """
    songs = [song for song in (_song(*each) for each in reports) if song.models]
    failed = []
    if songs and player:
        folder = common_folder(path for song in songs for path in song.files)
        failed = show_page(songs, folder, console)
    all_drawn = not plots or show_plots([song for song in songs if song not in failed], console)
    return all_drawn and not failed


def _song(song: Input, reports: Sequence[SeparationReport]) -> Song:
    stems = {r.model: order_stems(r.stems) for r in reports if r.stems and r.status != "error"}
    return Song(song.track, stems)


def common_folder(stems: Iterable[Path]) -> Path:
    """The innermost folder that holds all stems: the song's if there is only one song."""
    folders = {path.parent for path in stems}
    kind = type(next(iter(folders)))  # keeps URLs, which stand in for paths
    return kind(os.path.commonpath(folders))
