"""Hear what each training loss does: the demo song by every bundled model.

    python recipes/sounds.py --output sounds

writes one page, sounds/index.html, with two songs. The first has the true stems and those of every
model, to be switched while they play. The second has the errors: estimate minus true stem, at the
same level. The song is that of recipes/demo.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from demo import excerpt

import unetsep
from unetsep.errors import UnetsepError
from unetsep.listen.page import write_page
from unetsep.listen.songs import Song
from unetsep.weights.manifest import list_models, manifest

TRUTH = "true stems"


def four_stem_models() -> list[str]:
    """Bundled models except guides, which know only one stem."""
    return [e.name for e in list_models() if e.bundled and e.name not in manifest().guides]


def estimates(song: Path, models: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Model to its stems, each ``(channels, samples)``."""
    return {model: dict(unetsep.separate(song, model=model)) for model in models}


def write_stems(folder: Path, stems: Mapping[str, np.ndarray], rate: int) -> dict[str, Path]:
    """Files of a model's stems, float so that errors keep their level."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.wav" for name in stems}
    for name, path in paths.items():
        soundfile.write(path, stems[name].T, rate, subtype="FLOAT")
    return paths


def main() -> None:
    """Separate, subtract, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("sounds"))
    parser.add_argument("--models", nargs="+", default=four_stem_models(), metavar="NAME")
    options = parser.parse_args()
    song, truth = excerpt(options.output / "song")
    rate = soundfile.info(song).samplerate
    try:
        by_model = estimates(song, options.models)
    except UnetsepError as error:
        parser.error(str(error))
    # In the order of the models' stems; MUSDB18's own is another.
    truth = {name: truth[name] for name in by_model[options.models[0]]}
    stems, errors = {TRUTH: write_stems(options.output / "stems" / "true", truth, rate)}, {}
    for model, of_model in by_model.items():
        errors_of_model = {name: stem - truth[name] for name, stem in of_model.items()}
        stems[model] = write_stems(options.output / "stems" / model, of_model, rate)
        errors[model] = write_stems(options.output / "errors" / model, errors_of_model, rate)
    page = write_page(options.output, [Song("stems", stems), Song("what is wrong", errors)])
    print(f"{page}: open it in a browser; its two songs are the stems and what is wrong with them")


if __name__ == "__main__":
    main()
