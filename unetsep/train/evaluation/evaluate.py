"""Score methods on tracks: resumable, one track at a time in each process."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from ...audio.libsndfile import hide_decoder_chatter
from ...dsp.arrays import Signal
from ...errors import UnetsepError
from ...unfinished import as_they_end
from ..children import block_interrupts
from . import results
from .estimates import Method
from .scoring import TrackScores, score
from .stem_sets import StemSet, absent, in_set
from .tracks import Track, TrackAudio, read_track


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
    sources
        Sets of stems in which every method is scored, see `unetsep.train.evaluation.stem_sets`;
        without any each is scored in its `Method.default_set`.
    measures
        Further ones, keys of `unetsep.train.evaluation.measures.MEASURES`.
    """

    output: Path
    metrics: str = "sdr"
    duration: float | None = None
    sources: tuple[StemSet, ...] = ()
    measures: tuple[str, ...] = ()

    @property
    def sets(self) -> tuple[StemSet, ...]:
        """The sets, each once in any order; an empty one stands for a method's default."""
        return tuple({frozenset(each): each for each in self.sources}.values()) or ((),)


@dataclass(frozen=True)
class Outcome:
    """One method on one track in one set: scores, or why there are none.

    Parameters
    ----------
    method, track
        Names.
    scores
        None if it failed.
    error
        Empty unless it failed.
    reused
        Whether the scores are those of an earlier evaluation.
    sources
        The set that the user chose; empty for the method's default.
    """

    method: str
    track: str
    scores: TrackScores | None = None
    error: str = ""
    reused: bool = False
    sources: StemSet = ()


def evaluate(
    tracks: Sequence[Track],
    methods: Sequence[Method],
    settings: Settings,
    *,
    jobs: int = 1,
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Score every method on every track.

    Existing scores are reused, unless model, estimates, track, duration or scoring code have
    changed. A track is decoded once for all methods; memory is that
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
        Called with each outcome as soon as it exists.

    Returns
    -------
    list of Outcome
        Sorted by set, method and track, in the order given.

    Raises
    ------
    ValueError
        If two methods or tracks have one name, a stem is called ``mean``, or ``jobs`` is not
        positive.
    UnetsepError
        If a process dies or results cannot be written.
    """
    _check_names([method.name for method in methods], "methods")
    _check_names([results.file_name(track) for track in tracks], "tracks")
    for track in tracks:
        if "mean" in track.stems:
            raise ValueError(
                f"{track.name} has a stem called mean, as reports call the mean over stems: give "
                "it another name"
            )
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    work = functools.partial(score_track, methods=tuple(methods), settings=settings)
    outcomes: dict[tuple[StemSet, str, str], Outcome] = {}
    for outcome in _results(work, tracks, min(jobs, len(tracks))):
        outcomes[outcome.sources, outcome.method, outcome.track] = outcome
        if progress is not None:
            progress(outcome)
    return [
        outcomes[sources, method.name, track.name]
        for sources in settings.sets
        for method in methods
        for track in tracks
    ]


def refusals(
    tracks: Sequence[Track], methods: Sequence[Method], sets: Sequence[StemSet] = ((),)
) -> list[str]:
    """Find out before any work what cannot be scored.

    Parameters
    ----------
    tracks, methods
        Of the evaluation.
    sets
        See `Settings.sets`.

    Returns
    -------
    list of str
        A sentence for each method that cannot be scored on some of the tracks.

    Raises
    ------
    UnetsepError
        If a method cannot be scored on any track.
    """
    sentences = []
    for method, sources in itertools.product(methods, sets):
        reasons = [reason for track in tracks if (reason := _refusal(method, track, sources))]
        if len(reasons) == len(tracks):
            raise UnetsepError(f"{method.label} cannot be scored: {reasons[0]}")
        if reasons:
            sentences.append(
                f"{method.label} cannot be scored on {len(reasons)} of {len(tracks)} tracks, "
                f"the first: {reasons[0]}"
            )
    return sentences


def _refusal(method: Method, track: Track, sources: StemSet) -> str:
    """Why a track cannot be scored; empty if it can."""
    try:
        _scored_set(method, track, sources)
    except (UnetsepError, ValueError) as error:
        return str(error)
    return ""


def _scored_set(method: Method, track: Track, sources: StemSet) -> StemSet:
    """The set in which a method is scored on a track.

    Raises
    ------
    UnetsepError, ValueError
        If the track cannot be scored.
    """
    names = method.default_set(track)
    missing = absent(sources, names, track.stems)
    if missing:
        raise ValueError(f"it gives {', '.join(names)}, from which {missing[0]} cannot be added up")
    return sources or names


def _check_names(names: list[str], kind: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"two {kind} are called {repeated[0]!r}: their results would mix")


Work = Callable[[Track], list[Outcome]]


def _results(work: Work, tracks: Sequence[Track], jobs: int) -> Iterator[Outcome]:
    if jobs <= 1:
        for track in tracks:
            yield from work(track)
        return
    # Fresh processes: a fork of a process that runs threads (torch's) may hang.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    existing = multiprocessing.active_children()
    pool = ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(threads,))
    try:
        with block_interrupts():
            futures = [pool.submit(_work_on, work, track) for track in tracks]
        for future in as_they_end(futures):
            yield from future.result()
    except BrokenProcessPool as error:
        raise UnetsepError(
            "a process of the evaluation died, perhaps for lack of memory: try fewer --jobs; "
            "finished tracks are kept"
        ) from error
    except BaseException:  # such as Ctrl-C: unfinished tracks are abandoned
        for child in multiprocessing.active_children():
            if child not in existing:
                child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start(threads: int) -> None:
    """Prepare a process; only the first one handles Ctrl-C, and ends the others."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    hide_decoder_chatter()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())


def _end_with_parent() -> None:
    """End this process once its parent was killed; it would wait for work forever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _work_on(work: Work, track: Track) -> list[Outcome]:
    """Work in a process of the pool, which cleans up and ends at SIGTERM."""
    try:
        return work(track)
    except SystemExit:
        os._exit(128 + signal.SIGTERM)


def score_track(track: Track, methods: Sequence[Method], settings: Settings) -> list[Outcome]:
    """All methods on one track; errors of the outside world become outcomes."""
    # Each is read or computed when the first score needs it, and once for all scores.
    audio = functools.cache(lambda: read_track(track, settings.duration))
    track_origin = functools.cache(lambda: results.track_origin(track, settings.output))
    outcomes = []
    for method in methods:
        estimate = functools.cache(functools.partial(_estimate, method, track, audio))
        for sources in settings.sets:
            outcome = functools.partial(Outcome, method.name, track.name, sources=sources)
            path = results.path_of(settings.output, method.name, track, sources)
            try:
                # First, as it needs no hash of the track, whose files may be large.
                stem_set = _scored_set(method, track, sources)
                origin = results.origin_of(
                    method.dependencies(track), track_origin(), settings.duration
                )
                request = settings.metrics, settings.measures
                scores, mode, measures = results.reusable(path, stem_set, origin, *request)
                reused = scores is not None
                if scores is None:
                    scores = score(
                        in_set(audio().references, stem_set, track.stems),
                        in_set(estimate(), stem_set, track.stems),
                        audio().sample_rate,
                        mode=mode,
                        mixture=audio().mixture,
                        measures=measures,
                    )
            except (UnetsepError, ValueError) as error:
                outcomes.append(outcome(error=f"{track.name}: {error}"))
                continue
            except OSError as error:
                outcomes.append(outcome(error=f"{track.path}: {error}"))
                continue
            if not reused:
                results.write(path, scores, origin, mode)
                # As read from the file, so that a resumed report is the same.
                scores = results.read(path)[0]
            outcomes.append(outcome(scores=scores, reused=reused))
    return outcomes


def _estimate(method: Method, track: Track, audio: Callable[[], TrackAudio]) -> dict[str, Signal]:
    """A method's estimates of a track."""
    return method.estimate(track, audio())
