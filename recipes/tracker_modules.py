"""Render tracker modules into songs with stems: ``python recipes/tracker_modules.py SONGS``.

A module holds notes and samples, so that every instrument can be heard alone. Debian's games
bring free ones. ``recipes/tracker_modules.json`` names package, file, licence and what each
instrument plays; the labels come from names, pitches and spectra, and nobody has listened to them.

Writes ``SONGS/train/<module>/drums.flac`` and so on, for ``unetsep train --songs SONGS``, and
``SONGS/sources.csv``, which names the licence of each. Needs Debian's ``apt-get``, ``dpkg-deb``
and ``libopenmpt0``. A module whose stems do not add up to its own sound is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import gzip
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from source_list import SourceList

RATE = 44_100
BLOCK = 4096
STEMS = ("drums", "bass", "other")
TABLE = Path(__file__).with_suffix(".json")
# Sum of the stems against the module as it plays, in dB: effects that change with what else
# sounds make a difference in some.
LEAST_AGREEMENT = 20.0
# How often a module is drawn, relative to a song that is as long. Modules then make a tenth to a
# seventh of the clips, beside MUSDB18's excerpts and some twenty songs.
WEIGHT = 0.1
# Peak of the sum of a module's stems in the files.
PEAK = 0.9
# The functions of libopenmpt's extension "interactive", in their order; see libopenmpt_ext.h.
INTERACTIVE = 16
SET_INSTRUMENT_MUTE_STATUS = 12
# An interpolation filter of 8 taps, and no repetition.
FILTER_LENGTH, FILTER_TAPS = 3, 8


class Module:
    """One module, opened for one rendering.

    Parameters
    ----------
    library
        libopenmpt.
    content
        Of the module's file.

    Raises
    ------
    ValueError
        If libopenmpt cannot read it.
    """

    def __init__(self, library: ctypes.CDLL, content: bytes) -> None:
        self.library = library
        create = library.openmpt_module_ext_create_from_memory
        create.restype = ctypes.c_void_p
        empty = [None] * 7
        handle = create(content, ctypes.c_size_t(len(content)), *empty)
        if not handle:
            raise ValueError("libopenmpt cannot read it")
        self.handle = ctypes.c_void_p(handle)
        library.openmpt_module_ext_get_module.restype = ctypes.c_void_p
        self.plain = ctypes.c_void_p(library.openmpt_module_ext_get_module(self.handle))
        library.openmpt_module_set_render_param(self.plain, FILTER_LENGTH, FILTER_TAPS)
        library.openmpt_module_set_repeat_count(self.plain, 0)

    def keep(self, instruments: Iterable[int]) -> None:
        """Mute all instruments (or samples, where a module has no instruments) but these."""
        functions = (ctypes.c_void_p * INTERACTIVE)()
        result = self.library.openmpt_module_ext_get_interface(
            self.handle, b"interactive", functions, ctypes.c_size_t(ctypes.sizeof(functions))
        )
        if result != 1:
            raise ValueError("this libopenmpt cannot mute instruments")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int)
        mute = kind(functions[SET_INSTRUMENT_MUTE_STATUS])  # type: ignore[arg-type]
        count = self.library.openmpt_module_get_num_instruments(self.plain)
        count = count or self.library.openmpt_module_get_num_samples(self.plain)
        numbers = set(instruments)
        for number in range(count):
            mute(self.handle, number, int(number not in numbers))

    def render(self, seconds: float) -> np.ndarray:
        """The sound from its beginning, ``(samples, 2)`` at 44.1 kHz, float32."""
        read_block = self.library.openmpt_module_read_interleaved_float_stereo
        read_block.restype = ctypes.c_size_t
        blocks, remaining = [], int(seconds * RATE)
        while remaining > 0:
            block = np.zeros((min(BLOCK, remaining), 2), np.float32)
            pointer = block.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            count = read_block(self.plain, RATE, ctypes.c_size_t(len(block)), pointer)
            if not count:
                break
            blocks.append(block[:count])
            remaining -= count
        return np.concatenate(blocks) if blocks else np.zeros((0, 2), np.float32)

    def close(self) -> None:
        """Free it."""
        self.library.openmpt_module_ext_destroy(self.handle)


def render(
    library: ctypes.CDLL, content: bytes, instruments: Iterable[int] | None, seconds: float
) -> np.ndarray:
    """The sound of some instruments of a module, or of all, ``(samples, 2)``."""
    module = Module(library, content)
    try:
        if instruments is not None:
            module.keep(instruments)
        return module.render(seconds)
    finally:
        module.close()


def stems_of(
    library: ctypes.CDLL, content: bytes, labels: dict[str, list[int]], seconds: float
) -> tuple[dict[str, np.ndarray], float]:
    """A module's stems, and by how many dB their sum agrees with the whole."""
    total = render(library, content, None, seconds)
    stems = {stem: render(library, content, labels[stem], seconds) for stem in STEMS}
    length = min(map(len, (total, *stems.values())))
    stems = {stem: audio[:length] for stem, audio in stems.items()}
    error = np.square(sum(stems.values()) - total[:length], dtype=np.float64).sum()
    power = np.square(total[:length], dtype=np.float64).sum()
    return stems, float(10 * np.log10((power + 1e-12) / (error + 1e-12)))


def module_files(packages: Iterable[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Download Debian packages into a folder; give each file with its package."""
    for package in packages:
        inside = folder / package
        inside.mkdir(exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", package], cwd=inside, check=True)
        (archive,) = inside.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(inside / "files")], check=True)
        for path in sorted((inside / "files").rglob("*")):
            if path.is_file():
                yield package, path


def write_song(folder: Path, stems: dict[str, np.ndarray]) -> None:
    """Write the stems of a song at one gain, and mark its vocals as silent."""
    folder.mkdir(parents=True, exist_ok=True)
    peak = float(np.abs(sum(stems.values())).max())
    highest = max(peak, *(float(np.abs(audio).max()) for audio in stems.values()))
    for stem, audio in stems.items():
        soundfile.write(folder / f"{stem}.flac", audio * (PEAK / max(highest, 1e-6)), RATE)
    content = {"silent": ["vocals"], "weight": WEIGHT}
    (folder / "song.json").write_text(json.dumps(content) + "\n")


def main() -> None:
    """Render all modules of the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("songs", type=Path, help="folder for the songs")
    parser.add_argument("--seconds", type=float, default=120.0, help="at most, of each")
    parser.add_argument("--packages", help="only these, separated by commas")
    options = parser.parse_args()
    name = ctypes.util.find_library("openmpt")
    if name is None:
        parser.error("libopenmpt is missing: apt-get install libopenmpt0")
    library = ctypes.CDLL(name)
    table: list[dict[str, Any]] = json.loads(TABLE.read_text())
    rows = {(row["package"], row["file"]): row for row in table}
    packages = sorted({package for package, _ in rows})
    if options.packages:
        choice = options.packages.split(",")
        if unknown := set(choice) - set(packages):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(packages)}")
        packages = [each for each in packages if each in choice]
    columns = ("song", "package", "file", "licence", "seconds", "agreement in dB")
    sources = SourceList(options.songs / "sources.csv", columns, options.songs / "train")
    with tempfile.TemporaryDirectory() as temporary:
        for package, path in module_files(packages, Path(temporary)):
            row = rows.get((package, path.name.removesuffix(".gz")))
            if row is None:
                continue
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            stems, agreement = stems_of(library, content, row["stems"], options.seconds)
            song = f"{package}-{Path(row['file']).stem}".lower()
            seconds = len(stems["drums"]) / RATE
            verdict = "" if agreement >= LEAST_AGREEMENT else "; left out"
            print(f"{song}: {seconds:.0f} s, {agreement:.0f} dB{verdict}", flush=True)
            if verdict:
                continue
            write_song(options.songs / "train" / song, stems)
            source = [
                song,
                package,
                row["file"],
                row["licence"],
                f"{seconds:.0f}",
                f"{agreement:.0f}",
            ]
            sources.add(source)


if __name__ == "__main__":
    main()
