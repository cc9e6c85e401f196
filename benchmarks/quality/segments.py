"""Segment length and overlap: validation SDR, network work, and change at borders.

    python benchmarks/quality/segments.py --musdb-root ROOT

The songs of musdb's ``valid`` split are joined to one piece, which is separated twice, the
second time with all segment borders moved by 128 frames. Prints, for each setting, the
network's work for each frame, and the mean over stems of the median-of-frames SDR. Also the
relative change of the stems: 95th percentile of the frames near borders and elsewhere, and
of the total energy.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from unetsep.errors import UnetsepError
from unetsep.separator import Separator
from unetsep.train.evaluation.sdr import frame_sdr, median
from unetsep.train.evaluation.tracks import find_tracks, read_track

SHIFT = 128  # frames
HOP = 1024
SETTINGS = [
    *((512, 0.0), (512, 0.125), (512, 0.25), (512, 0.5)),
    *((1024, 0.0625), (1024, 0.125), (1024, 0.25), (1024, 0.5)),
]


def to_border(frame: np.ndarray, segment: int, step: int) -> np.ndarray:
    """Frames to the nearest begin or end of a segment."""
    begin = np.minimum(frame % step, -frame % step)
    end = np.minimum((frame - segment) % step, (segment - frame) % step)
    return np.minimum(begin, end)


def measure(
    separator: Separator, mixture: np.ndarray, references: np.ndarray, overlap: float
) -> tuple[float, ...]:
    """SDR, and change near borders, elsewhere and in total, in dB."""
    segment = separator.config.segment_frames
    stems = np.stack(list(separator.separate(mixture, 44_100).values()))
    score = float(median(frame_sdr(references, stems)).mean())
    reference = stems[..., SHIFT * HOP :]
    shifted = np.stack(list(separator.separate(mixture[:, SHIFT * HOP :], 44_100).values()))
    frames = shifted.shape[-1] // HOP
    shape = (len(reference), 2, frames, HOP)
    error = np.square((reference - shifted)[..., : frames * HOP].reshape(shape)).sum(axis=(0, 1, 3))
    power = np.square(reference[..., : frames * HOP].reshape(shape)).sum(axis=(0, 1, 3)) + 1e-9
    step = segment - round(segment * overlap)
    frame = np.arange(frames)
    distance = np.minimum(to_border(frame, segment, step), to_border(frame + SHIFT, segment, step))
    inside = (frame > SHIFT) & (frame < frames - segment)
    near = inside & (distance < 32)
    far = inside & (distance >= 32)
    change = error / power
    return (
        score,
        *(float(10 * np.log10(np.percentile(change[part], 95))) for part in (near, far)),
        float(10 * np.log10(error[inside].sum() / power[inside].sum())),
    )


def main() -> None:
    """Measure all settings and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--musdb-root", type=Path, required=True)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    try:
        songs = [read_track(track) for track in find_tracks(options.musdb_root, "valid")]
        separator = Separator(options.model, precision="fp32")
    except UnetsepError as error:
        parser.error(str(error))
    mixture = np.concatenate([song.mixture for song in songs], axis=1)
    references = np.concatenate(
        [np.stack([song.references[name] for name in separator.stems]) for song in songs], axis=2
    )
    for segment, overlap in SETTINGS:
        separator.config = dataclasses.replace(separator.config, segment_frames=segment)
        separator.overlap = overlap
        values = measure(separator, mixture, references, overlap)
        print(
            f"{segment:5d} {overlap:5.3f}  work {1 / (1 - overlap):.2f}  SDR {values[0]:.3f}  "
            f"near {values[1]:6.1f}  elsewhere {values[2]:6.1f}  total {values[3]:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
