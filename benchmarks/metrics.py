"""Time and agreement of the package's metrics against museval, side by side.

Run ``python benchmarks/metrics.py [FOLDER] [--seconds N]``. FOLDER holds a song's four
stems as audio files; the default is the excerpt that the stempeg package brings. Oracle
ratio masks serve as estimates. Each line is one repetition of all three, so that a busy
machine treats them alike.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import soxr
import torch
from record import RATE, seconds

from unetsep.config import STEMS
from unetsep.errors import UnetsepError
from unetsep.train.data.decode import read_audio
from unetsep.train.evaluation.baselines import oracle_mask
from unetsep.train.evaluation.scoring import METRICS, MODES, score
from unetsep.train.evaluation.sdr import Array
from unetsep.train.evaluation.tracks import Track, TrackAudio, read_track


def excerpt() -> TrackAudio:
    """The excerpt in stempeg."""
    import stempeg

    path = Path(stempeg.example_stem_path())
    return read_track(Track(path.name, "test", path))


def folder(path: Path, duration: float | None) -> TrackAudio:
    """A folder of stems, at the rate of MUSDB18; their sum is the mixture."""
    stems = {}
    for stem in STEMS:
        files = sorted(path.glob(f"{stem}.*"))
        if len(files) != 1:
            raise click.UsageError(f"{path} has {len(files)} files {stem}.*: expected one")
        try:
            signal, rate = read_audio(files[0], duration)
        except UnetsepError as error:
            raise click.UsageError(str(error)) from error
        signal = soxr.resample(signal.T, rate, RATE).T.astype(np.float32)
        # 16 bits, as in MUSDB18: their noise keeps the filters' equations well-posed.
        signal = (np.rint(signal * 32768) / 32768).astype(np.float32)
        stems[stem] = np.repeat(signal, 2, axis=0) if len(signal) == 1 else signal
    samples = min(signal.shape[1] for signal in stems.values())
    stems = {stem: signal[:, :samples] for stem, signal in stems.items()}
    return TrackAudio(np.sum(list(stems.values()), axis=0), stems, RATE)


@click.command()
@click.argument(
    "path", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option("--seconds", "duration", type=float)
@click.option("--repeat", default=3)
@click.option("--threads", default=1)
def main(path: Path | None, duration: float | None, repeat: int, threads: int) -> None:
    """Print times in seconds and the largest difference from museval in dB."""
    import museval  # noqa: F401  (its import is not what is measured)

    torch.set_num_threads(threads)
    recording = excerpt() if path is None else folder(path, duration)
    length = recording.mixture.shape[1] / recording.sample_rate
    estimates = oracle_mask(recording, 1)
    click.echo(f"{length:.1f} s, four stereo stems, {threads} threads")
    values: dict[str, dict[str, Array]] = {}
    for _ in range(repeat):
        times = {}
        for mode in MODES:

            def run(mode: str = mode) -> None:
                scores = score(recording.references, estimates, recording.sample_rate, mode=mode)
                values[mode] = scores.values

            times[mode] = seconds(run)
        ratios = [times["museval"] / times[mode] for mode in ("bsseval", "sdr")]
        click.echo(
            "  ".join(f"{mode} {spent:.3f} s" for mode, spent in times.items())
            + f"  bsseval {ratios[0]:.1f}x, sdr {ratios[1]:.0f}x as fast as museval"
        )
    for mode in MODES[:2]:
        for metric in METRICS[: 1 if mode == "sdr" else None]:
            gap = np.abs(values[mode][metric] - values["museval"][metric])
            click.echo(f"{mode} {metric}: at most {np.nanmax(gap):.1e} dB from museval")


if __name__ == "__main__":
    main()
