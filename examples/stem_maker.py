"""Stem files for Mixxx or Traktor from a crate: one .stem.mp4 for each track, and a playlist.

    python examples/stem_maker.py crate/ stems/
    python examples/stem_maker.py friday.m3u8 stems/ --model fast

A .stem.mp4 holds the track and its four stems, with names and colours; the deck shows four more
faders. Tags and covers travel along. stems/stems.m3u8 lists the files in the crate's order: give
each crate a folder of its own. What is there is left alone, so the same command goes on where it
was stopped. Needs ffmpeg.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "unetsep", "separate", "--json", "--quiet"]


def planned(words: Sequence[str]) -> list[tuple[str, str]]:
    """Tracks and models in the crate's order; what is wrong with them is said by `reports`."""
    run = subprocess.run(
        [*COMMAND, "--dry-run", *words], capture_output=True, text=True, encoding="utf-8"
    )
    found = map(json.loads, run.stdout.splitlines())
    return [(report["source"], report["model"]) for report in found]


def reports(words: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What ``unetsep separate`` says about each track, as soon as it is done.

    Ends the program if the command failed by itself, not by one of the tracks.
    """
    command, bad_track = [*COMMAND, *words], False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                report = json.loads(line)
                bad_track = bad_track or report["status"] == "error"
                yield report
        except KeyboardInterrupt:
            process.wait()  # Ctrl-C reached it, too: it removes what is unfinished
            raise
    if process.returncode and not bad_track:
        raise SystemExit(process.returncode)  # it has said why, on stderr


def write_playlist(path: Path, files: Sequence[Path]) -> None:
    """An m3u8 file whose entries are relative, so that the folder can be moved."""
    names = (file.relative_to(path.parent).as_posix() for file in files)
    # A line that begins with # is a comment, and players take blanks away.
    entries = (f"./{name}" if name.startswith(("#", " ")) else name for name in names)
    text = "\n".join(["#EXTM3U", *entries]) + "\n"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))  # names may be no Unicode


def make(crate: Sequence[str], folder: Path, model: str) -> int:
    """Write the stem files and the playlist; returns how many tracks have none."""
    words = ["--format", "stem.mp4", "--skip-existing", "--model", model, "--output", str(folder)]
    words += ["--", *crate]
    # Several tracks are worked on at a time and end in any order, each with every model.
    order = planned(words)
    made: dict[tuple[str, str], Path] = {}
    without: set[str] = set()
    for report in reports(words):
        if report["status"] == "error":
            without.add(report["source"])  # the command itself has said why, on stderr
        elif not report["stems"]:  # another run is working on it
            without.add(report["source"])
            print(f"{report['source']}: {report['reason']}", file=sys.stderr)
        else:
            file = Path(report["stems"]["vocals"])
            made[report["source"], report["model"]] = file
            print(f"{len(made):4d}  {report['status']:7s}  {file.name}", flush=True)
    if made:
        write_playlist(folder / "stems.m3u8", [made[each] for each in order if each in made])
    return len(without)


def main() -> None:
    """Make a crate's stem files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crate", nargs="+", help="tracks, folders or m3u playlists")
    parser.add_argument("folder", type=Path, help="where stem files go")
    parser.add_argument("--model", default="default", help="one or several: fast,guided")
    options = parser.parse_args()
    try:
        without = make(options.crate, options.folder, options.model)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(f"without a stem file: {without}" if without else 0)


if __name__ == "__main__":
    main()
