"""Time and peak memory against the length of the song, and a folder against single songs.

    python benchmarks/scaling.py --json scaling.json

Synthetic stereo songs of 44.1 kHz and 16 bits, from ten seconds to two hours long, are separated by
``unetsep separate``, each in a process of its own, by one and by two threads. Needs about 1.5 GB
of disk for each ten minutes of the longest song.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from record import UNETSEP, checkout, measure, save, synthesise

LENGTHS = (10, 30, 60, 180, 600, 1800, 7200)


def separate(songs: Path, threads: int, model: str) -> dict[str, float]:
    """Wall clock, CPU seconds and peak memory of one process."""
    with tempfile.TemporaryDirectory(dir=songs.parent) as folder:
        command = [*UNETSEP, "separate", songs, "-o", folder, "-q"]
        command += ["--model", model, "--threads", str(threads)]
        use = measure(command, checkout(), list(range(threads)))
        stems = list(Path(folder).rglob("*.wav"))
        count = 4 * (len(list(songs.glob("*.wav"))) if songs.is_dir() else 1)
        assert len(stems) == count, stems
        if not songs.is_dir():
            frames = soundfile.info(str(songs)).frames
            assert all(soundfile.info(str(stem)).frames == frames for stem in stems)
    return {"wall": use.wall, "cpu": use.cpu, "peak_mib": use.peak_mib}


def lengths(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each length and number of threads."""
    rows: list[dict[str, Any]] = []
    for seconds in options.seconds:
        song = folder / "song.wav"
        synthesise(song, seconds)
        for threads in options.threads:
            row = {"seconds": seconds, "threads": threads}
            rows.append(row | separate(song, threads, options.model))
            print(
                "{seconds:7.0f} s  {threads} threads  {wall:8.2f} s  {cpu:8.2f} CPU s  "
                "{peak_mib:6.0f} MiB".format(**rows[-1]),
                flush=True,
            )
        song.unlink()
    return rows


def fit(rows: list[dict[str, Any]], threads: int) -> dict[str, float]:
    """Straight line through the times: start-up, and seconds for each second of the song.

    Weighted so that errors count in proportion to the time, else the longest song decides.
    """
    rows_of_fit = [row for row in rows if row["threads"] == threads]
    length = np.array([row["seconds"] for row in rows_of_fit], float)
    wall = np.array([row["wall"] for row in rows_of_fit])
    slope, start = np.polyfit(length, wall, 1, w=1 / wall)
    error = np.abs(slope * length + start - wall) / wall
    return {"threads": threads, "start": start, "slope": slope, "largest_error": error.max()}


def folder_of_songs(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds for a folder of short songs in one process, and for one song in one."""
    songs = folder / "songs"
    songs.mkdir()
    for index in range(options.songs):
        synthesise(songs / f"{index:02}.wav", options.song_seconds)
    threads = max(options.threads)
    together = separate(songs, threads, options.model)["wall"]
    single = separate(songs / "00.wav", threads, options.model)["wall"]
    return {"songs": options.songs, "each": options.song_seconds, "folder": together, "one": single}


def main() -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=LENGTHS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--songs", type=int, default=20, help="in the folder")
    parser.add_argument("--song-seconds", type=float, default=10.0)
    parser.add_argument("--model", default="default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if len({*options.seconds}) < 2:
        parser.error("a line takes two lengths or more: --seconds 10 60")
    with tempfile.TemporaryDirectory() as folder:
        rows = lengths(Path(folder), options)
        songs = folder_of_songs(Path(folder), options)
    fits = [fit(rows, threads) for threads in options.threads]
    for line in fits:
        print(
            "{threads} threads: {start:.2f} s + {slope:.5f} s for each second, within "
            "{largest_error:.0%}".format(**line)
        )
    print(
        "{songs} songs of {each:g} s: {folder:.2f} s in one process, one song {one:.2f} s".format(
            **songs
        )
    )
    save(options.json, {"rows": rows, "fits": fits, "folder": songs})


if __name__ == "__main__":
    main()
