"""Collect recordings under open licences to train the model `open`.

    python recipes/open_data.py MUSDB18-7 SONGS POOLS DATA

links what the table below names from the folders of `recipes/default_model.sh` into DATA/songs and
DATA/pools. The validation songs of MUSDB18 are linked into DATA/validation: they select weights and
are not trained on. ``DATA/sources.csv`` has the licence of each recording. A recording that the
table does not name is skipped, so nothing gets in by lying beside the others.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from unetsep.train.data.musdb import VALID_SONGS, song_name

SONGS = {
    "everything-is-free-caesium": "CC0, Software-Entwicklungskit",
    "everything-is-free-lithium": "CC0, Software-Entwicklungskit",
    "everything-is-free-sodium": "CC0, Software-Entwicklungskit",
    "kira-dynamic": "MIT / Apache-2.0",
}
POOLS = {
    "vocals/producerspace-*": "CC0, Producer Space",
    "vocals/pjs-*": "CC BY-SA 4.0, Koguchi and Takamichi (PJS corpus)",
    "vocals/misc-*": "CC BY 4.0, vocadito and sms-tools",
    "vocals/waveform-playlist-*": "MIT, naomiaro/waveform-playlist",
    "drums/nafx-*": "Apache-2.0, csteinmetz1/steerable-nafx",
    "drums/sonicpi-loops-*": "CC0, Sonic Pi",
    "bass/audiokit-*": "MIT, AudioKit Cookbook",
    "bass/cwilso-*": "MIT, cwilso/WebAudio",
    "other/audiokit-*": "MIT, AudioKit Cookbook",
    "other/cwilso-*": "MIT, cwilso/WebAudio",
    "other/cycfi-guitar-*": "MIT, cycfi/Q",
    "other/metal-guitar-*": "CC BY-SA 3.0, El Senator; MIT, Carlos Viola Iborra",
    "other/nafx-*": "Apache-2.0, csteinmetz1/steerable-nafx",
    "other/solo-winds-*": "CC BY, MTG Good-sounds and librosa",
    "other/waveform-playlist-*": "MIT, naomiaro/waveform-playlist",
}
# Folders of DATA that hold only links of this script.
LINK_FOLDERS = ("songs", "pools", "validation")


def sources(songs: Path, pools: Path) -> Iterator[tuple[Path, str, str]]:
    """Each recording with its place in the data and its licence.

    Raises
    ------
    FileNotFoundError
        If there is none that a line of the table names.
    """
    for name, licence in SONGS.items():
        yield _only((songs / "train").glob(name), name)[0], f"songs/train/{name}", licence
    for pattern, licence in POOLS.items():
        for path in _only(pools.glob(pattern), pattern):
            yield path, f"pools/{path.parent.name}/{path.name}", licence


def _only(candidates: Iterator[Path], name: str) -> list[Path]:
    paths = sorted(candidates)
    if not paths:
        raise FileNotFoundError(f"there is no {name} among the songs and pools given")
    return paths


def validation_songs(musdb_root: Path) -> list[Path]:
    """The 14 songs that musdb sets aside for validation, as far as they exist.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    paths = (musdb_root / "train").glob("*")
    songs = sorted(each for each in paths if song_name(each) in VALID_SONGS)
    if not songs:
        raise FileNotFoundError(f"there is no validation song of MUSDB18 in {musdb_root / 'train'}")
    return songs


def link(path: Path, place: Path) -> None:
    """Link ``place`` to ``path``, replacing an earlier link."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(path.resolve(), target_is_directory=path.is_dir())


def main() -> None:
    """Link everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("musdb_root", "songs", "pools", "data"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    for source in (options.songs, options.pools):
        if source.resolve().is_relative_to(options.data.resolve()):
            parser.error(f"{source} lies in {options.data}, whose links are replaced")
    try:
        validation = validation_songs(options.musdb_root)
        recordings = list(sources(options.songs, options.pools))
    except FileNotFoundError as error:
        parser.error(str(error))
    for folder in LINK_FOLDERS:
        for place in sorted((options.data / folder).rglob("*")):
            if place.is_symlink():  # of an earlier table, which may have named more
                place.unlink()
    rows = []
    for path, place, licence in recordings:
        link(path, options.data / place)
        rows.append([place, licence])
    for path in validation:
        link(path, options.data / "validation" / "train" / path.name)
    with (options.data / "sources.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["recording", "licence"])
        table.writerows(rows)


if __name__ == "__main__":
    main()
