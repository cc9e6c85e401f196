"""Score methods on tracks: resumable, one track at a time in each process."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from ...audio.libsndfile import hide_decoder_chatter
from ...errors import UnetsepError
from . import results
from .estimates import Method, references
from .scoring import TrackScores, score
from .tracks import Track, read_track


@dataclass(frozen=True)
class Settings:
    """How to score.

    Parameters
    ----------
    output
        Folder of the results.
    metrics
        One of `unetsep.train.evaluation.scoring.MODES`.
    duration
        Seconds of each track that are read, separated and scored; None for all.
    """

    output: Path
    metrics: str = "sdr"
    duration: float | None = None


@dataclass(frozen=True)
class Outcome:
    """One method on one track: scores, or why there are none.

    Parameters
    ----------
    method, track
        Names.
    scores
        None if it failed.
    error
        Empty unless it failed.
    reused
        Whether the scores were there before.
    """

    method: str
    track: str
    scores: TrackScores | None = None
    error: str = ""
    reused: bool = False


def evaluate(
    tracks: Sequence[Track],
    methods: Sequence[Method],
    settings: Settings,
    *,
    jobs: int = 1,
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Score every method on every track.

    What is there already is not computed again, unless model, estimates, track, duration
    or scoring code have changed. A track is decoded once for all methods; memory is that
    of one track and one method's stems for each process.

    Parameters
    ----------
    tracks
        From `unetsep.train.evaluation.tracks.find_tracks`.
    methods
        From `unetsep.train.evaluation.estimates`; names must differ.
    settings
        Where results go, what is computed.
    jobs
        Processes; each uses its share of the cores.
    progress
        Called with each outcome as it is known.

    Returns
    -------
    list of Outcome
        Sorted by method and track, in the order given.

    Raises
    ------
    ValueError
        If two methods or tracks have one name, or ``jobs`` is not positive.
    UnetsepError
        If a process dies or results cannot be written.
    """
    _check_names([method.name for method in methods], "methods")
    _check_names([track.name for track in tracks], "tracks")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    work = functools.partial(score_track, methods=tuple(methods), settings=settings)
    found: dict[tuple[str, str], Outcome] = {}
    for outcome in _results(work, tracks, min(jobs, len(tracks))):
        found[outcome.method, outcome.track] = outcome
        if progress is not None:
            progress(outcome)
    return [found[method.name, track.name] for method in methods for track in tracks]


def check_scores(tracks: Sequence[Track], methods: Sequence[Method]) -> list[str]:
    """Find out before any work what can have no score.

    Returns
    -------
    list of str
        A sentence for each method that some of the tracks can have no score of.

    Raises
    ------
    UnetsepError
        If there is a method that no track can have a score of.
    """
    sentences = []
    for method in methods:
        reasons = [reason for track in tracks if (reason := _refusal(method, track))]
        if len(reasons) == len(tracks):
            raise UnetsepError(f"{method.label} cannot be scored: {reasons[0]}")
        if reasons:
            sentences.append(
                f"{method.label} cannot be scored on {len(reasons)} of {len(tracks)} tracks, "
                f"the first: {reasons[0]}"
            )
    return sentences


def _refusal(method: Method, track: Track) -> str:
    """Why there can be no score; empty if there can."""
    try:
        method.check(track)
    except (UnetsepError, ValueError) as error:
        return str(error)
    return ""


def _check_names(names: list[str], what: str) -> None:
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"two {what} are called {double[0]!r}: their results would mix")


Work = Callable[[Track], list[Outcome]]


def _results(work: Work, tracks: Sequence[Track], jobs: int) -> Iterator[Outcome]:
    if jobs <= 1:
        for track in tracks:
            yield from work(track)
        return
    # Fresh processes: a fork of a process that runs threads (torch's) may hang.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(threads,))
    try:
        for future in as_completed([pool.submit(work, track) for track in tracks]):
            yield from future.result()
    except BrokenProcessPool as error:
        raise UnetsepError(
            "a process of the evaluation died, perhaps for want of memory: try fewer --jobs; "
            "finished tracks are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(threads: int) -> None:
    """Prepare a process; Ctrl-C is for the first one, which ends the others."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hide_decoder_chatter()
    torch.set_num_threads(threads)


def score_track(track: Track, methods: Sequence[Method], settings: Settings) -> list[Outcome]:
    """All methods on one track; errors of the outside world become outcomes."""
    try:
        about = results.track_origin(track)
    except OSError as error:
        return [Outcome(m.name, track.name, error=f"{track.path}: {error}") for m in methods]
    outcomes = []
    audio = None
    for method in methods:
        try:
            origin = results.Origin(method.origin(track), about, settings.duration)
            path = results.path_of(settings.output, method.name, track)
            there = results.reusable(path, origin, settings.metrics)
            if there is not None:
                outcomes.append(Outcome(method.name, track.name, there, reused=True))
                continue
            if audio is None:
                audio = read_track(track, settings.duration)
            estimates = method.estimate(track, audio)
            true = references(audio, estimates)
            scores = score(
                true,
                estimates,
                audio.sample_rate,
                mode=settings.metrics,
                mixture=audio.mixture,
            )
        except (UnetsepError, ValueError) as error:
            outcomes.append(Outcome(method.name, track.name, error=f"{track.name}: {error}"))
            continue
        results.write(path, scores, origin, settings.metrics)
        # As they would be read from the file, so that a resumed report is the same.
        outcomes.append(Outcome(method.name, track.name, results.read(path)[0]))
    return outcomes
