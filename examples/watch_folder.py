"""Separate whatever is dropped into a folder.

    python examples/watch_folder.py inbox/ stems/

A song is taken when its size has not changed between two looks, so that copies and downloads are
complete. Songs whose stems are there are left alone. A bad file is told of once and stops nothing.
Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import unetsep

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".m4a"}


def sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    """Audio files of a folder and those below it, with their bytes."""
    for parent, _, names in os.walk(folder):  # folders that vanish meanwhile are no error
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES:
                with contextlib.suppress(OSError):  # it vanished, or is a link to nothing yet
                    yield path, path.stat().st_size


class Watcher:
    """Looks into a folder again and again, and separates what is new.

    Parameters
    ----------
    inbox, stems
        Folders; that of the stems must not lie in the inbox.
    separator
        The model, loaded once.
    tell
        Called with a line for each song.

    Raises
    ------
    ValueError
        If there is no inbox, or the stems lie in it.
    """

    def __init__(
        self,
        inbox: Path,
        stems: Path,
        separator: unetsep.Separator,
        tell: Callable[[str], None] = print,
    ) -> None:
        if not inbox.is_dir():
            raise ValueError(f"{inbox} is no folder: name the one that songs are dropped into")
        if stems.resolve().is_relative_to(inbox.resolve()):
            raise ValueError(f"{stems} lies in {inbox}: its stems would be separated again")
        self.inbox, self.stems, self.separator, self.tell = inbox, stems, separator, tell
        self._sizes: dict[Path, int] = {}
        self._done: set[tuple[Path, int]] = set()

    def look(self) -> None:
        """Separate the songs whose size is what it was at the last look."""
        before = self._sizes
        self._sizes = dict(sorted(sizes(self.inbox)))
        for path, size in self._sizes.items():
            if before.get(path) == size and (path, size) not in self._done:
                self._done.add((path, size))
                self._separate(path)

    def _separate(self, path: Path) -> None:
        target = self.stems / path.parent.relative_to(self.inbox)
        try:
            report = unetsep.separate_to_files(
                path, target, model=self.separator, skip_existing=True
            )
        except unetsep.UnetsepError as error:
            self.tell(f"{path.name}: {error}")
        else:
            if report.status == "ok":
                self.tell(f"{path.name}: {', '.join(report.stems)} in {report.elapsed:.1f} s")


def main() -> None:
    """Watch until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inbox", type=Path)
    parser.add_argument("stems", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--seconds", type=float, default=5.0, help="between two looks")
    options = parser.parse_args()
    try:
        watcher = Watcher(options.inbox, options.stems, unetsep.Separator(options.model))
    except ValueError as error:
        parser.error(str(error))
    print(f"Watching {options.inbox}; Ctrl-C ends it.")
    try:
        while True:
            watcher.look()
            time.sleep(options.seconds)
    except KeyboardInterrupt:
        print("Done.")


if __name__ == "__main__":
    main()
