"""Separate whatever is dropped into a folder.

    python examples/watch_folder.py inbox/ stems/

A song is separated when it has not changed between two scans, so that copies and downloads are
complete; if it changes later it is separated again. Songs whose stems exist are skipped. A bad file
is reported once and does not stop the others. Ctrl-C ends the program.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import unetsep
from unetsep.audio.decoder import AUDIO_SUFFIXES

# Size in bytes and time of the last change: some programs allocate the whole file before copying.
State = tuple[int, int]


def states(folder: Path) -> Iterator[tuple[Path, State]]:
    """Audio files of a folder and its subfolders, with their states."""
    for parent, _, names in os.walk(folder):  # ignores folders that vanish meanwhile
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in AUDIO_SUFFIXES:
                with contextlib.suppress(OSError):  # it vanished, or is a dangling link
                    status = path.stat()
                    yield path, (status.st_size, status.st_mtime_ns)


class Watcher:
    """Scans a folder repeatedly and separates new songs.

    Parameters
    ----------
    inbox, stems
        Folders; that of the stems must not be inside the inbox.
    separator
        The model, loaded once.
    tell
        Called with a line for each song.

    Raises
    ------
    ValueError
        If there is no inbox, or the stems are inside it.
    """

    def __init__(
        self,
        inbox: Path,
        stems: Path,
        separator: unetsep.Separator,
        tell: Callable[[str], None] = print,
    ) -> None:
        if not inbox.is_dir():
            raise ValueError(f"{inbox} is not a folder: name the one that songs are dropped into")
        if stems.resolve().is_relative_to(inbox.resolve()):
            raise ValueError(f"{stems} is inside {inbox}: its stems would be separated again")
        self.inbox, self.stems, self.separator, self.tell = inbox, stems, separator, tell
        self._states: dict[Path, State] = {}
        self._handled: dict[Path, State] = {}
        self._with_stems: set[Path] = set()
        self._inbox_exists = True

    def look(self) -> None:
        """Separate the songs that have not changed since the last scan."""
        exists = self.inbox.is_dir()
        if self._inbox_exists and not exists:
            self.tell(f"{self.inbox} is gone; waiting for it")
        previous, self._inbox_exists = self._states, exists
        self._states = dict(sorted(states(self.inbox)))
        for path, state in self._states.items():
            complete = previous.get(path) == state != self._handled.get(path)
            if complete and self._separate(path, path in self._handled):
                self._handled[path] = state

    def _separate(self, path: Path, changed: bool) -> bool:
        """Separate a song; whether it needs no other attempt unless it changes."""
        target = self.stems / path.parent.relative_to(self.inbox)
        namesakes = (p for p in self._with_stems if p.with_suffix("") == path.with_suffix(""))
        namesake = next((each for each in namesakes if each != path and each.exists()), None)
        if namesake is not None:  # both would write the same stems
            self.tell(f"{path.name}: has the name of {namesake.name}, whose stems exist: rename it")
            return True
        try:
            report = unetsep.separate_to_files(
                path, target, model=self.separator, skip_existing=True, overwrite=changed
            )
        except unetsep.UnetsepError as error:
            self.tell(f"{path.name}: {error}")
        else:
            if not report.stems:  # another run is separating it, and may never finish
                return False
            self._with_stems.add(path)
            if report.status == "ok":
                self.tell(f"{path.name}: {', '.join(report.stems)} in {report.elapsed:.1f} s")
        return True


def main() -> None:
    """Watch until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inbox", type=Path)
    parser.add_argument("stems", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--seconds", type=float, default=5.0, help="time between scans")
    options = parser.parse_args()
    try:
        watcher = Watcher(options.inbox, options.stems, unetsep.Separator(options.model))
    except (ValueError, unetsep.UnetsepError) as error:
        parser.error(str(error))
    if not 0 <= options.seconds <= 86_400:
        parser.error(f"--seconds must be 0 to 86400, got {options.seconds:g}")
    print(f"Watching {options.inbox}; press Ctrl-C to stop.")
    try:
        while True:
            watcher.look()
            time.sleep(options.seconds)
    except KeyboardInterrupt:
        print("Done.")


if __name__ == "__main__":
    main()
