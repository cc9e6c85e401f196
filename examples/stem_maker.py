"""Stem files for Mixxx or Traktor from a crate: one .stem.mp4 for each track, and a playlist.

    python examples/stem_maker.py crate/ stems/
    python examples/stem_maker.py friday.m3u8 stems/ --model fast

A .stem.mp4 holds the track and its four stems, with names and colours; the deck shows four more
faders. Tags and covers are copied. stems/stems.m3u8 lists the files in the crate's order: give
each crate a folder of its own. Existing files are skipped, so the same command resumes after an
interruption. Needs ffmpeg.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FILENAME = "{track}.{ext}"
COMMAND = [sys.executable, "-m", "unetsep", "separate", "--json", "--quiet"]


def plan(options: Sequence[str]) -> list[tuple[str, str]]:
    """Tracks and models in the crate's order; `reports` shows their errors."""
    run = subprocess.run(
        [*COMMAND, "--dry-run", *options], capture_output=True, text=True, encoding="utf-8"
    )
    lines = map(json.loads, run.stdout.splitlines())
    return [(report["source"], report["model"]) for report in lines]


def reports(options: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The report of ``unetsep separate`` on each track, as soon as it is done.

    Exits if the command itself failed, not one of the tracks.
    """
    command, bad_track = [*COMMAND, *options], False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                report = json.loads(line)
                bad_track = bad_track or report["status"] == "error"
                yield report
        except KeyboardInterrupt:
            process.wait()  # Ctrl-C reached it as well: it removes unfinished files
            raise
    if process.returncode and not bad_track:
        raise SystemExit(process.returncode)  # it has printed the reason on stderr


def write_playlist(path: Path, files: Sequence[Path]) -> None:
    """An m3u8 file whose entries are relative, so that the folder can be moved."""
    names = (file.relative_to(path.parent).as_posix() for file in files)
    # A line that starts with # is a comment, and players strip spaces.
    entries = (f"./{name}" if name.startswith(("#", " ")) else name for name in names)
    text = "\n".join(["#EXTM3U", *entries]) + "\n"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))  # names may be invalid Unicode


def make(crate: Sequence[str], folder: Path, model: str, filename: str = FILENAME) -> int:
    """Write the stem files and the playlist; returns the number of tracks without a file."""
    options = ["--format", "stem.mp4", "--skip-existing", "--model", model]
    options += ["--filename", filename]
    options += ["--output", str(folder), "--", *crate]
    # Several tracks are separated at once and end in any order, each with every model.
    order = plan(options)
    files: dict[tuple[str, str], Path] = {}
    failures: set[str] = set()
    for report in reports(options):
        if report["status"] == "error":
            failures.add(report["source"])  # the command has printed the reason on stderr
        elif not report["stems"]:  # another run is separating it
            failures.add(report["source"])
            print(f"{report['source']}: {report['reason']}", file=sys.stderr)
        else:
            file = Path(next(iter(report["stems"].values())))  # all stems are in one file
            files[report["source"], report["model"]] = file
            print(f"{len(files):4d}  {report['status']:7s}  {file.name}", flush=True)
    if files:
        write_playlist(folder / "stems.m3u8", [files[each] for each in order if each in files])
    return len(failures)


def main() -> None:
    """Make a crate's stem files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crate", nargs="+", help="tracks, folders or m3u playlists")
    parser.add_argument("folder", type=Path, help="where stem files go")
    parser.add_argument("--model", default="default", help="one or several: fast,guided")
    parser.add_argument("--filename", default=FILENAME, help='or "{artist} - {title}.{ext}"')
    options = parser.parse_args()
    try:
        failures = make(options.crate, options.folder, options.model, options.filename)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(f"without a stem file: {failures}" if failures else 0)


if __name__ == "__main__":
    main()
