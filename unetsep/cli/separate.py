"""What the ``separate`` command does."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ..audio.decoder import AUDIO_SUFFIXES
from ..audio.libsndfile import hide_decoder_chatter
from ..drives import NameRules
from ..file_options import FileOptions
from ..files import SeparationReport
from ..inputs import Input
from ..library.batch import SongOutcome, check_timeout, choose_songs_at_once, separate_songs
from ..library.log import STDIN, RunLog, check_log, log_path, song_line
from ..library.remote import RemoteLog, Spool
from ..library.shards import Shard
from ..library.songs import Job, part_for, preview_song
from ..listen.page import refuse_foreign
from ..listen.plots import require_matplotlib
from ..network.devices import keep_freed_memory
from ..paths import (
    ModelNames,
    SongTargets,
    find_clashes,
    name_targets,
    named_by_track,
    refuse_folder,
    template_for,
    uses_tags,
    with_namesakes,
    with_tags,
)
from ..separator import Separator
from ..weights.manifest import is_path
from .listen import common_folder, show_separated
from .models import ModelChoice
from .pipes import (
    STREAM,
    listed_files,
    require_one_file,
    standard_input,
    standard_output,
    write_out,
)
from .progress import Bars
from .reporter import Reporter
from .song_search import SongSearch, has_failed_urls, select_shard
from .terminal import Messages


@dataclass(frozen=True)
class Computation:
    """How models compute: the keywords of `unetsep.separator.Separator`."""

    device: str
    precision: str
    overlap: float | None
    mask_extension: str
    wiener: int | None
    gate: bool
    passes: int


@dataclass(frozen=True)
class SeparateOptions:
    """Options of the command.

    Parameters
    ----------
    songs
        Files, folders, playlists and URLs; ``-`` is standard input.
    files_from
        A file that lists more of them, one to a line; ``-`` is standard input.
    output
        Folder of the stems, or its URL; ``-`` is standard output.
    choice, computation
        The models, and how they compute.
    file_options
        Which part of a song is separated, and how its stems are written.
    threads
        CPU threads; None uses all cores.
    songs_at_once
        Songs to separate at once; None chooses automatically.
    shard
        Which share of the songs; None is all.
    engine, address, dashboard
        ``local``, or ``ray`` with the address of its cluster and whether to show its dashboard.
    timeout
        Seconds for one song; None is no limit.
    log
        Where the log is written; None is the default path, used for several songs, shards and
        retries.
    retry_failed
        Separate the songs whose last attempt failed, according to the logs.
    skip_existing
        Skip songs whose stems exist, made by the same options or not; with ``overwrite`` only the
        former.
    dry_run
        Only print what would be written.
    player, plots
        Write a page that plays the stems, pictures of them.
    as_json, quiet, verbose
        What is printed.
    """

    songs: tuple[Path | str, ...]
    files_from: Path | None
    output: Path | str
    choice: ModelChoice
    computation: Computation
    file_options: FileOptions
    threads: int | None
    songs_at_once: int | None
    shard: Shard | None
    engine: str
    address: str | None
    dashboard: bool
    timeout: float | None
    log: Path | None
    retry_failed: bool
    skip_existing: bool
    dry_run: bool
    player: bool
    plots: bool
    as_json: bool
    quiet: bool
    verbose: bool

    @property
    def skips_existing(self) -> bool:
        """Whether songs whose stems exist are skipped instead of refused.

        After a song failed, a command without a log may have separated it.
        """
        return self.skip_existing or (self.retry_failed and not self.file_options.overwrite)


def run_separate(options: SeparateOptions) -> bool:
    """The ``separate`` command.

    Returns
    -------
    bool
        Whether every song was separated or skipped.
    """
    if options.files_from == STREAM and STREAM in options.songs:
        raise ValueError("stdin holds either a song or names of songs: use - once")
    songs = [*options.songs, *listed_files(options.files_from)]
    _check_options(options, songs)
    url = options.output if isinstance(options.output, str) else None
    with contextlib.ExitStack() as stack:
        named_songs = stack.enter_context(standard_input(songs))
        has_urls = any(isinstance(song, str) for song in songs)
        remote = has_urls or url or (not songs and _retries_urls(options))
        spool = stack.enter_context(Spool(url)) if remote else None
        if isinstance(options.output, str):
            assert spool
            output = spool.out
        else:
            output = stack.enter_context(standard_output(options.output))
        names = {
            Path(new): STDIN for new, old in zip(named_songs, songs, strict=True) if old == STREAM
        }
        run = _Run(replace(options, songs=tuple(named_songs)), output, spool, names)
        return _plan_and_separate(run)


def _check_options(options: SeparateOptions, songs: Sequence[Path | str]) -> None:
    """Refuse options that cannot be combined with each other or with the songs."""
    if Path("#") in options.songs and not Path("#").exists():  # zsh and cmd know no comments
        raise ValueError("# starts no comment in this shell: leave it and what follows out")
    if options.output == STREAM and (options.as_json or options.player or options.plots):
        raise ValueError(
            "-o - writes only the stem: it cannot be combined with --json, --player or --plots"
        )
    if options.output == STREAM and options.retry_failed and options.log is None:
        raise ValueError(
            "-o - has no folder with logs that --retry-failed could read: name a log with --log"
        )
    if options.file_options.together and (options.player or options.plots):
        raise ValueError(
            f"--player and --plots need a file for each stem, not {options.file_options.suffix}"
        )
    if isinstance(options.output, str) and (options.player or options.plots):
        raise ValueError(f"--player and --plots need a local folder, not {options.output}")
    _check_output_name(options.output)
    _check_engine(options, songs)
    check_timeout(options.timeout)
    if options.log:
        check_log(options.log)


@dataclass(frozen=True)
class _Run:
    """The command, with files and folders instead of streams and URLs.

    Parameters
    ----------
    options
        As given on the command line, except for standard input.
    output
        The folder where stems are written.
    spool
        Temporary copies of songs and stems at URLs, if there are any.
    names
        Names of files that stand for standard streams.
    """

    options: SeparateOptions
    output: Path
    spool: Spool | None
    names: Mapping[Path, str]


def _plan_and_separate(run: _Run) -> bool:
    """Plan all songs, then separate or preview them; return whether nothing failed."""
    options = run.options
    keep_freed_memory()
    hide_decoder_chatter()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.plots:
        require_matplotlib()
    reporter = Reporter(
        as_json=options.as_json,
        quiet=options.quiet,
        verbose=options.verbose,
        dry_run=options.dry_run,
    )
    separators = _load(options, reporter.console)
    with run.spool.naming() if run.spool else contextlib.nullcontext():
        jobs = _plan(run, separators, reporter.console)
    targets = [path for job in jobs for part in job.parts for path in part.targets]
    names = dict(run.names)
    if options.output == STREAM:
        require_one_file(targets)
        names |= dict.fromkeys(targets, "stdout")
    if names:
        jobs = [replace(job, names=names) for job in jobs]
    if options.player:
        _check_page(jobs)
    if options.dry_run:
        return _preview(jobs, options, reporter)
    log = _open_log(run, len(jobs))
    try:
        reports = _report_outcomes(run, jobs, reporter, log)
    except (KeyboardInterrupt, SystemExit):
        reporter.print_log_path(log)
        raise
    in_order = [(job.song, reports[job]) for job in jobs]
    try:
        complete = show_separated(
            in_order, reporter.console, player=options.player, plots=options.plots
        )
    finally:  # the stems are complete, with or without a page
        succeeded = reporter.end(log)
    return succeeded and complete


def _report_outcomes(
    run: _Run, jobs: Sequence[Job], reporter: Reporter, log: RunLog | None
) -> dict[Job, list[SeparationReport]]:
    """Separate the songs; print and log the reports of each as soon as it ends."""
    reports = {}
    with (
        log or contextlib.nullcontext(),
        Bars(reporter.console, jobs, reporter.traceback) as bars,
        contextlib.closing(_outcomes(run, jobs, bars)) as outcomes,
    ):
        for outcome in outcomes:
            bars.end(outcome)
            if run.options.output == STREAM:  # before success is reported
                write_out(outcome.job.parts[0].targets[0])
            reporter.print_song(outcome.reports)
            if log:
                log.write(
                    outcome.line or song_line(outcome.job, outcome.reports, outcome.start_time)
                )
            reports[outcome.job] = outcome.reports
    return reports


def _check_page(jobs: Sequence[Job]) -> None:
    """Refuse, before any work, to replace a page that unetsep did not write."""
    stems = [p for job in jobs if not job.song.error for part in job.parts for p in part.targets]
    if stems:
        refuse_foreign(common_folder(stems))


def _preview(jobs: Sequence[Job], options: SeparateOptions, reporter: Reporter) -> bool:
    """Print what would be written, and write nothing."""
    for job in jobs:
        reporter.print_song(job.present(preview_song(job, options.file_options)))
    return reporter.end(None)


def _check_output_name(output: Path | str) -> None:
    """Refuse a device, such as /dev/stdout, and a new folder that is named like an audio file."""
    if isinstance(output, str):
        return
    if output.exists():
        what = "" if output.is_dir() or output.is_file() else "is a device or a pipe"
    else:
        is_audio = output.suffix.lower() in AUDIO_SUFFIXES
        what = "is named like an audio file" if is_audio else ""
    if what:
        raise ValueError(
            f"-o {output} {what}, but stems are written to a folder: name a folder, or write one "
            "stem to stdout with -o -"
        )


def _check_engine(options: SeparateOptions, songs: Sequence[Path | str]) -> None:
    """Refuse options that cannot be combined with the engine."""
    if options.engine == "local" and (options.address or options.dashboard):
        raise ValueError("--address and --dashboard are for --engine ray")
    if options.address and options.dashboard:
        raise ValueError("--dashboard is for a cluster on this machine: leave out --address")
    if options.engine == "ray" and (STREAM in songs or options.output == STREAM):
        raise ValueError("--engine ray takes files and URLs, not - for stdin or stdout")
    if options.engine == "ray" and ":" in options.computation.device:
        raise ValueError("--engine ray chooses among a machine's GPUs: give --device cuda")


def _outcomes(run: _Run, jobs: Sequence[Job], bars: Bars) -> Generator[SongOutcome, None, None]:
    """Separate the songs."""
    options = run.options
    if options.engine == "ray":
        return _outcomes_on_ray(run, jobs, bars)
    return separate_songs(
        jobs,
        options.file_options,
        at_once=options.songs_at_once or choose_songs_at_once(jobs),
        timeout=options.timeout,
        listener=bars,
    )


def _outcomes_on_ray(
    run: _Run, jobs: Sequence[Job], bars: Bars
) -> Generator[SongOutcome, None, None]:
    from ..library.ray import Cluster, SlotSetup, separate_on_ray

    options, groups = run.options, _groups(run.options)
    cluster = Cluster(
        address=options.address,
        slots=options.songs_at_once,
        threads=options.threads,
        device=options.computation.device,
        dashboard=options.dashboard,
    )
    setup = SlotSetup(
        models=groups,
        computation=asdict(options.computation),
        options=options.file_options,
        skip_existing=options.skips_existing,
        timeout=options.timeout,
        output=options.output if isinstance(options.output, str) else run.output.absolute(),
        template=template_for(options.file_options.filename, len(groups)),
    )
    # When Ray loses a worker it prints to stdout, which is for reports.
    with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null):
        yield from separate_on_ray(jobs, setup, cluster, bars)


def _groups(options: SeparateOptions) -> list[list[str]]:
    """Groups of models, with paths that do not depend on the current folder."""
    return [
        [os.path.abspath(name) if is_path(name) else name for name in group]  # noqa: PTH100
        for group in options.choice.groups()
    ]


def _open_log(run: _Run, songs: int) -> RunLog | None:
    """The log of a run; a single song has one only with ``--log``, a shard or a retry."""
    options = run.options
    if options.log:
        return RunLog(options.log)
    # Without a line about its success, a retried song would still count as failed.
    needs_log = songs > 1 or options.shard is not None or options.retry_failed
    if options.output == STREAM or not needs_log:
        return None
    if run.spool and run.spool.output:
        return RemoteLog(log_path(run.spool.folder), run.spool.output)
    return RunLog(log_path(run.output))


def _retries_urls(options: SeparateOptions) -> bool:
    """Whether songs at URLs are to be retried that only the logs in a folder name."""
    if not options.retry_failed or isinstance(options.output, str):
        return False
    return has_failed_urls(options.output, options.log)


def _find_songs(run: _Run, console: Messages) -> list[Input]:
    """The songs to separate."""
    options = run.options
    search = SongSearch(options.output, run.output, run.spool, options.log, console)
    if options.retry_failed:
        return search.find_failed(options.songs)
    if not options.songs:
        source = "stdin" if options.files_from == STREAM else options.files_from
        console.print(f"{source} lists no songs: nothing to do")
    return search.find(options.songs)


def _load(options: SeparateOptions, console: Messages) -> list[Separator]:
    """Load the models; ``--verbose`` prints how long it took."""
    start = time.perf_counter()
    computation = asdict(options.computation)
    if options.engine == "ray" and not options.dry_run:
        computation |= {"device": "cpu", "precision": "fp32"}  # only names are needed here
    separators = [Separator(models, **computation) for models in options.choice.groups()]
    if options.verbose:
        names = ", ".join(separator.name for separator in separators)
        first = separators[0]
        where = f"{first.device.type}, {first.precision}, {torch.get_num_threads()} threads, "
        if options.engine == "ray":  # each slot has its own
            where = ""
        console.print(
            f"Loaded {names} in {time.perf_counter() - start:.2f} s; {where}torch "
            f"{torch.__version__}"
        )
    return separators


def _plan(run: _Run, separators: Sequence[Separator], console: Messages) -> list[Job]:
    """All songs with their stems' paths; errors that can be known are found before any work."""
    options, file_options = run.options, run.options.file_options
    all_songs = _find_songs(run, console)
    # Logs may also name URLs, so this needs the list of songs.
    at_urls = run.spool is not None and any(map(run.spool.url, all_songs))
    if at_urls and uses_tags(file_options.filename):
        raise ValueError(
            "--filename has fields of tags, which are unknown before songs at URLs are downloaded: "
            "use other fields, such as {track} and {stem}"
        )
    if at_urls or run.names:
        refuse_folder(file_options.filename)
    selected = select_shard(all_songs, options.shard, console)
    # Shards keep songs of one track together. With other names, any two songs may clash.
    by_track = named_by_track(file_options.filename)
    songs = with_namesakes(selected, all_songs) if by_track else all_songs
    songs = with_tags(songs, file_options.filename)
    selections = [file_options.select(separator) for separator in separators]
    models = [ModelNames(s.name, c.names) for s, c in zip(separators, selections, strict=True)]
    name_rules = NameRules(probe=not options.dry_run)
    targets = name_targets(
        songs,
        models,
        run.output,
        file_options.filename,
        file_options.suffix,
        together=file_options.together,
        name_rules=name_rules,
    )
    clashes = _find_clashes(songs, targets, all_songs, run.spool, name_rules)
    songs = [replace(song, error=clash) for song, clash in zip(songs, clashes, strict=True)]
    template = template_for(file_options.filename, len(separators))
    make_job = run.spool.job if run.spool else Job
    identities = {(song.path, song.track) for song in selected}
    return [
        make_job(
            song,
            [
                part_for(separator, song, paths, run.output, template, file_options)
                for separator, paths in zip(separators, of_song, strict=True)
            ],
            skip_existing=options.skips_existing,
        )
        for song, of_song in zip(songs, targets, strict=True)
        if (song.path, song.track) in identities
    ]


def _find_clashes(
    songs: Sequence[Input],
    targets: Sequence[SongTargets],
    all_songs: Sequence[Input],
    spool: Spool | None,
    name_rules: NameRules,
) -> list[str | None]:
    """`find_clashes` of the locations that users see; all paths in a spool differ."""
    if not spool:
        return find_clashes(songs, targets, name_rules, all_songs)
    return find_clashes(
        [replace(song, path=spool.location(song.path)) for song in songs],
        [[[spool.location(path) for path in paths] for paths in of_song] for of_song in targets],
        name_rules,
        [replace(song, path=spool.location(song.path)) for song in all_songs],
    )
