"""What can be scored: models, baselines, and folders of stems that any tool wrote."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...config import common_config
from ...dsp.arrays import Signal
from ...errors import AudioError, WeightsError
from ...network.devices import usable_device
from ...separator import Separator
from ...version import __version__
from ...weights.load import load_checkpoint
from ...weights.manifest import model_name
from ..data.decode import read_audio
from ..data.musdb import STEM_SUFFIX
from ..data.song_folders import stem_files
from ..data.sources import audio_files
from .baselines import BASELINES, LABELS
from .stem_sets import ACCOMPANIMENT, rest_of
from .tracks import Track, TrackAudio, read_rate

# What tools call the sum of all stems but the vocals.
ACCOMPANIMENT_NAMES = (ACCOMPANIMENT, "no_vocals", "instrumental")
MUSDB_RATE = 44_100


class Method:
    """Anything that gives estimates of a track's stems.

    Attributes
    ----------
    name
        Of its folder of results.
    kind
        ``model``, ``baseline`` or ``estimates``.
    """

    name: str
    kind: ClassVar[str]

    @property
    def label(self) -> str:
        """Name in reports."""
        return self.name

    def dependencies(self, track: Track) -> dict[str, Any]:
        """What the estimates of a track depend on, besides the track."""
        raise NotImplementedError

    def default_set(self, track: Track) -> tuple[str, ...]:
        """The set in which a track is scored unless the user chooses another.

        It needs no separation, so that a track that cannot be scored is refused before any work.

        Raises
        ------
        UnetsepError, ValueError
            With the reason.
        """
        raise NotImplementedError

    def estimate(self, track: Track, audio: TrackAudio) -> dict[str, Signal]:
        """Estimates, each ``(channels, samples)``, of what `default_set` names at least."""
        raise NotImplementedError


@dataclass(frozen=True)
class ModelMethod(Method):
    """A model, or the mean of several models' masks, always computed in fp32.

    Parameters
    ----------
    models
        Names from the manifest or paths of checkpoints.
    name
        Name in reports.
    sha256
        Of the checkpoints, joined by ``+``.
    stems
        Of the models.
    device
        Where to compute.
    passes
        See `unetsep.separator.Separator`.
    """

    models: tuple[str, ...]
    name: str
    sha256: str
    stems: tuple[str, ...]
    device: str = "auto"
    passes: int = 1
    kind: ClassVar[str] = "model"

    def dependencies(self, track: Track) -> dict[str, Any]:  # noqa: ARG002
        """The checkpoint's hash, the passes if several, and the version that ran it."""
        several = {"passes": self.passes} if self.passes > 1 else {}
        return {"kind": self.kind, "sha256": self.sha256, **several, "unetsep": __version__}

    def default_set(self, track: Track) -> tuple[str, ...]:
        """The track's stems that the model has; if it is only one, that and the rest."""
        common = tuple(stem for stem in track.stems if stem in self.stems)
        if not common:
            raise ValueError(
                f"the model estimates {', '.join(self.stems)}, the songs have "
                f"{', '.join(track.stems)}: scores need a stem of both"
            )
        return common if len(common) > 1 else (common[0], rest_of(common[0]))

    def estimate(self, track: Track, audio: TrackAudio) -> dict[str, Signal]:  # noqa: ARG002
        """The model's stems; where the track has only one of them, that and the rest.

        Stems that the track does not have (piano) are part of its other.

        Raises
        ------
        WeightsError
            If a checkpoint is no longer the one whose hash this has.
        """
        separator = _separator(self)
        common = [stem for stem in separator.stems if stem in audio.references]
        if len(common) > 1:
            stems = separator.separate(audio.mixture, audio.sample_rate)
            estimates = {stem: stems[stem] for stem in audio.references if stem in stems}
            extra = [signal for stem, signal in stems.items() if stem not in audio.references]
            if extra and "other" in estimates:
                estimates["other"] = np.sum([estimates["other"], *extra], axis=0)
            return estimates
        (stem,) = common
        pair = separator.separate(audio.mixture, audio.sample_rate, two_stems=stem)
        return {stem: pair[stem], rest_of(stem): pair[f"no_{stem}"]}


@functools.lru_cache(maxsize=8)
def _separator(method: ModelMethod) -> Separator:
    """The separator of a method, loaded once in each process."""
    separator = Separator(
        method.models, device=method.device, precision="fp32", passes=method.passes
    )
    if "+".join(sha256 for _, sha256 in separator.checkpoints) != method.sha256:
        raise WeightsError(
            f"{method.name} is another model than when the evaluation began, as a training that "
            "still runs replaces it: start the evaluation again"
        )
    return separator


@dataclass(frozen=True)
class BaselineMethod(Method):
    """One of `unetsep.train.evaluation.baselines`."""

    name: str
    kind: ClassVar[str] = "baseline"

    @property
    def label(self) -> str:
        """Name in reports."""
        return LABELS[self.name]

    def dependencies(self, track: Track) -> dict[str, Any]:  # noqa: ARG002
        """The baseline's name, and the version that ran it."""
        return {"kind": self.kind, "name": self.name, "unetsep": __version__}

    def default_set(self, track: Track) -> tuple[str, ...]:
        """All stems; a baseline that cannot give them raises an error in `estimate`."""
        return track.stems

    def estimate(self, track: Track, audio: TrackAudio) -> dict[str, Signal]:  # noqa: ARG002
        """Estimates of all stems."""
        return BASELINES[self.name](audio)


@dataclass(frozen=True)
class FolderMethod(Method):
    """Stems that lie in a folder, one folder per track.

    A track's stems are looked for in ``<path>/<track>``, ``<path>/<test or train>/<track>``
    and, since other tools name folders after files, ``<track>.stem`` and
    ``<track>/mixture``.
    """

    path: Path
    name: str
    kind: ClassVar[str] = "estimates"

    def dependencies(self, track: Track) -> dict[str, Any]:
        """Names, sizes and times of the track's stems."""
        stats = [(path, path.stat()) for path in self.find(track).values()]
        files = [[str(path.relative_to(self.path)), s.st_size, s.st_mtime_ns] for path, s in stats]
        # Marked as whole: older scores, perhaps of estimates that end early, are not reused.
        return {"kind": self.kind, "files": files, "whole": True}

    def default_set(self, track: Track) -> tuple[str, ...]:
        """The estimates in the folder.

        Raises
        ------
        AudioError
            If there are fewer than two, or one cannot be read or has another rate.
        """
        files = self.find(track)
        rates = {path: read_rate(path) for path in files.values()}
        # Asking ffmpeg for the rate of each song of MUSDB18 would take seconds.
        if not track.path.name.endswith(STEM_SUFFIX) or {*rates.values()} != {MUSDB_RATE}:
            for path, rate in rates.items():
                _check_rate(path, rate, track.sample_rate())
        return tuple(files)

    def estimate(self, track: Track, audio: TrackAudio) -> dict[str, Signal]:
        """Read the stems; a longer file is read no further than the track.

        Raises
        ------
        AudioError
            If one cannot be read, has another rate, or ends over a second before the track falls
            silent. Its missing part would not count, as silent estimates have no score.
        """
        rate, samples = audio.sample_rate, audio.mixture.shape[1]
        end = int(np.flatnonzero(audio.mixture.any(axis=0)).max(initial=-1)) + 1
        stems = {}
        for stem, path in self.find(track).items():
            stems[stem], file_rate = read_audio(path, (samples + 1) / rate)
            _check_rate(path, file_rate, rate)
            count = stems[stem].shape[1]
            if count < end - rate:
                raise AudioError(
                    f"{path} ends after {count / rate:.1f} of {end / rate:.1f} s: separate the "
                    f"song again, or score all of them with --duration {max(1, count // rate)}"
                )
        return stems

    def find(self, track: Track) -> dict[str, Path]:
        """Stem name to file: the track's stems, or some, else vocals and accompaniment.

        Raises
        ------
        AudioError
            If there are fewer than two, or two files of one stem.
        """
        names = {*track.stems, *ACCOMPANIMENT_NAMES}
        long_name = f"{track.name}{STEM_SUFFIX.removesuffix('.mp4')}"
        for base in (self.path, self.path / track.folder):
            for folder in (base / track.name, base / long_name, base / track.name / "mixture"):
                paths = (path for path in audio_files(folder, deep=False) if path.stem in names)
                files = stem_files(folder, paths, str)
                stems = {stem: files[stem] for stem in track.stems if stem in files}
                if len(stems) >= 2:
                    return stems
                accompaniment = next(
                    (files[name] for name in ACCOMPANIMENT_NAMES if name in files), None
                )
                if accompaniment is not None and "vocals" in stems:
                    return {"vocals": stems["vocals"], ACCOMPANIMENT: accompaniment}
        raise AudioError(
            f"{self.path} has no estimates of {track.name!r}: expected {track.name}/ with two "
            f"or more of {', '.join(track.stems)}, or vocals and {' or '.join(ACCOMPANIMENT_NAMES)}"
        )


def _check_rate(path: Path, rate: int, reference: int) -> None:
    if rate != reference:
        raise AudioError(
            f"{path} has {rate} Hz, its reference {reference} Hz: scores need samples that stand "
            "at the same times, resample it first"
        )


def model_method(models: Sequence[str], device: str = "auto", passes: int = 1) -> ModelMethod:
    """One or more models, loaded once, so that a wrong name or device fails before work starts.

    The name includes several passes, ``guided-2-passes``.

    Raises
    ------
    WeightsError
        If a model cannot be loaded.
    UnetsepError
        If the device is missing or unusable.
    ValueError
        If their masks cannot be averaged.
    """
    device_name = str(usable_device(device))
    name = "+".join(model_name(model) for model in models)
    networks, digests = zip(*map(load_checkpoint, models), strict=True)
    config = common_config([network.config for network in networks], name)
    digest = "+".join(digests)
    name += f"-{passes}-passes" if passes > 1 else ""
    return ModelMethod(tuple(map(str, models)), name, digest, config.stems, device_name, passes)


def baseline_methods(names: str) -> list[BaselineMethod]:
    """Baselines by name, separated by commas; also ``all`` or ``none``."""
    if names == "none":
        return []
    choices = list(BASELINES) if names == "all" else [name.strip() for name in names.split(",")]
    for name in choices:
        if name not in BASELINES:
            raise ValueError(f"no baseline {name!r}: expected all, none, {', '.join(BASELINES)}")
    return [BaselineMethod(name) for name in dict.fromkeys(choices)]


def folder_method(path: Path) -> FolderMethod:
    """A folder of estimates, named after the folder."""
    if not path.is_dir():
        raise AudioError(f"{path} is not a folder of estimates")
    return FolderMethod(path, path.resolve().name)
