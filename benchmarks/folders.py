"""What many short songs cost, against one long song of the same length.

The command separates both, one after the other, as often as asked; the least of each counts.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from record import UNETSEP, Use, checkout, measure, save, synthesise

# What a second of audio may cost in short songs, times what it costs in a long one.
LIMIT = 1.25


def separate(songs: Path, options: argparse.Namespace) -> Use:
    """Run the command on a folder of songs."""
    out = songs.parent / "out"
    command = [*UNETSEP, "separate", "-q", "-m", options.model, "-d", "cpu"]
    command += ["-f", options.format, "-o", str(out), str(songs)]
    for name in ("threads", "jobs"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    use = measure(command, checkout())
    shutil.rmtree(out)
    return use


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each short song")
    parser.add_argument("--model", default="fast")
    parser.add_argument("--format", default="wav")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--jobs", type=int, help="by default the command chooses")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds: list[dict[str, Use]] = []
    with tempfile.TemporaryDirectory() as name:
        folders = {kind: Path(name) / kind for kind in ("short", "long")}
        for folder in folders.values():
            folder.mkdir()
        synthesise(folders["long"] / "song.wav", options.songs * options.seconds)
        synthesise(folders["short"] / "0000.wav", options.seconds)
        for index in range(1, options.songs):
            # Links, as thousands of copies fill a disk.
            (folders["short"] / f"{index:04}.wav").hardlink_to(folders["short"] / "0000.wav")
        for _ in range(options.rounds):
            # One after the other, so that other work of the machine affects both.
            rounds.append({kind: separate(folder, options) for kind, folder in folders.items()})
            for kind, use in rounds[-1].items():
                print(
                    f"{kind:6} {use.wall:7.1f} s, {use.cpu:7.1f} s of all cores, "
                    f"{use.peak_mib:5.0f} MiB",
                    flush=True,
                )
    ratios = {
        key: min(getattr(each["short"], key) for each in rounds)
        / min(getattr(each["long"], key) for each in rounds)
        for key in ("wall", "cpu")
    }
    print(
        f"{options.songs} songs of {options.seconds:g} s take {ratios['wall']:.2f} times as long "
        f"as one song of the same length, {ratios['cpu']:.2f} times its work (limit {LIMIT:g})"
    )
    save(options.json, {"rounds": rounds, "ratios": ratios})


if __name__ == "__main__":
    main()
