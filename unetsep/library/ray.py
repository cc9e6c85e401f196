"""The songs of a run on the machines of a Ray cluster.

A slot is an actor, a process with the models loaded; there is one for each CPU or few, or for each
GPU. A slot gets its next song when it has ended one, so no queue builds up. A song whose
slot is lost goes to another slot. Songs are separated by the same code as elsewhere, with the
same safeguards: claims, records, and files that appear only when complete.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from ..dsp.song_stream import Progress
from ..errors import UnetsepError, how_to_install
from ..file_options import FileOptions
from ..files import SeparationReport
from ..inputs import Input
from ..separator import Separator
from ..unfinished import ENDING, TICK
from ..version import __version__
from .batch import GRACE, Listener, SongOutcome, separate_songs
from .claims import BUSY, STALE
from .log import now, song_line
from .machines import (
    CPUS_BESIDE_GPU,
    GPU,
    ClusterMachine,
    SlotNeeds,
    cpus_beside_gpu,
    slot_device,
)
from .remote import RemoteJob, Spool
from .songs import Job, part_for, stopped_reports

# Number of lost slots after which their song counts as the cause.
LOSSES = 3
# Seconds between looks for new machines, and between retries of a song that is still claimed by
# a lost slot on another machine.
LOOK_EVERY = 10.0
# Seconds to wait until the head of a cluster accepts a connection.
PATIENCE = 20.0


@dataclass(frozen=True)
class Cluster:
    """The cluster that the slots run on.

    Parameters
    ----------
    address
        Of a running cluster, as Ray takes it; None starts one on this machine for the run.
    slots
        Most slots to use; None uses all that fit.
    threads
        CPUs of a slot; None means one, or up to four with a GPU.
    device
        As `Separator` takes it; ``auto`` takes GPUs where the cluster has any.
    dashboard
        Start Ray's dashboard, on 127.0.0.1, with a cluster on this machine.
    """

    address: str | None = None
    slots: int | None = None
    threads: int | None = None
    device: str = "auto"
    dashboard: bool = False


@dataclass(frozen=True)
class SlotSetup:
    """Settings that every slot gets.

    Parameters
    ----------
    models
        Groups of names, as `Separator` takes them.
    computation
        Further keywords of `Separator`.
    options, skip_existing, timeout
        See `unetsep.library.batch.separate_songs` and `Job`.
    output
        Folder of the stems, which all machines can access, or its URL.
    template
        See `unetsep.library.songs.part_for`.
    """

    models: Sequence[Sequence[str]]
    computation: Mapping[str, Any]
    options: FileOptions
    skip_existing: bool
    timeout: float | None
    output: Path | str
    template: str


@dataclass(frozen=True)
class SlotTask:
    """A song on its way to a slot: paths of stems are relative to the output folder."""

    song: Input
    url: str | None
    targets: Sequence[Sequence[Path]]
    first_signatures: Sequence[tuple[int, int] | None]


class Slot(Listener):
    """A process that separates one song after another; Ray creates it on its machine."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def load(self, setup: SlotSetup, threads: int, device: str) -> str:
        """Load the models; returns the version of this machine's unetsep."""
        self._setup, self._threads = setup, threads
        torch.set_num_threads(threads)
        keywords = {**setup.computation, "device": device}
        self._separators = [Separator(list(models), **keywords) for models in setup.models]
        url = setup.output if isinstance(setup.output, str) else None
        self._stack = contextlib.ExitStack()
        self._spool = self._stack.enter_context(Spool(url))
        self._output = self._spool.out if isinstance(setup.output, str) else setup.output
        return __version__

    def separate(self, task: SlotTask) -> tuple[list[SeparationReport], dict[str, Any], datetime]:
        """Separate a song; returns its reports, its line for the log and its start time."""
        torch.set_num_threads(self._threads)  # of this thread, which may be another one
        job = self._job(task)
        outcomes = separate_songs(
            [job], self._setup.options, timeout=self._setup.timeout, listener=self
        )
        with contextlib.closing(outcomes):
            outcome = next(outcomes)
        return (
            outcome.reports,
            song_line(job, outcome.reports, outcome.start_time),
            outcome.start_time,
        )

    def _job(self, task: SlotTask) -> Job:
        setup, song = self._setup, task.song
        if task.url is not None:
            song = self._spool.input(task.url, song.track, song.error)
        parts = [
            replace(
                part_for(
                    separator,
                    song,
                    [self._output / path for path in paths],
                    self._output,
                    setup.template,
                    setup.options,
                ),
                first_signature=signature,
            )
            for separator, paths, signature in zip(
                self._separators, task.targets, task.first_signatures, strict=True
            )
        ]
        return self._spool.job(song, parts, skip_existing=setup.skip_existing)

    def begin(self, job: Job) -> Progress:  # noqa: ARG002
        """A progress callback that ends the song when the run ends."""
        return lambda _seconds, _total: not self._stopped.is_set()

    def stop(self) -> None:
        """Stop the song that is being separated; it leaves no files."""
        self._stopped.set()

    def close(self) -> None:
        """Remove temporary files from this machine."""
        self._stack.close()


@dataclass
class _Attempt:
    """A song to separate, and how often its slot was lost."""

    job: Job
    losses: int = 0
    lost_at: float = 0.0
    not_before: float = 0.0
    start_time: datetime = field(default_factory=now)


def separate_on_ray(
    jobs: Sequence[Job],
    setup: SlotSetup,
    cluster: Cluster,
    listener: Listener,
) -> Generator[SongOutcome, None, None]:
    """Separate songs on a cluster and yield the outcome of each as soon as it has ended.

    Close the iterator, or exhaust it: then all slots have ended, and a cluster of this run too.

    Parameters
    ----------
    jobs
        The songs, with paths that all machines can access, or URLs.
    setup
        Settings of the slots.
    cluster
        The cluster that they run on.
    listener
        Notified when songs begin; there is no progress within a song.

    Yields
    ------
    SongOutcome
        One for each song, with its line for the log.

    Raises
    ------
    UnetsepError
        If Ray is missing or its cluster cannot be reached, if models cannot be loaded there, or
        if a machine has another version of unetsep.
    """
    if not jobs:
        return
    ray = _connect(cluster)
    run = _RayRun(ray, jobs, setup, cluster, listener)
    try:
        while run.pending or run.running:
            yield from run.step()
    finally:
        run.end()
        ray.shutdown()


def _connect(cluster: Cluster) -> Any:
    """Connect to Ray, without telemetry and without ports that are open to other machines."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Slots get their device as a setting, so Ray must not hide GPUs from those without one.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UnetsepError(
            f"--engine ray needs ray, which is not installed: run {how_to_install('ray')}"
        ) from error
    keywords: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is None:
        cpus = None if cluster.slots is None else cluster.slots * (cluster.threads or 1)
        keywords |= {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": cluster.dashboard,
            "dashboard_host": "127.0.0.1",
            "_node_ip_address": "127.0.0.1",
        }
    else:
        keywords["address"] = cluster.address
    try:
        if cluster.address is not None:
            _require_answer(cluster.address)
        with _own_signals():
            ray.init(**keywords)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, ImportError) as error:
        where = cluster.address or "this machine"
        words = " ".join(str(error).split())
        raise UnetsepError(f"Ray's cluster at {where} cannot be used: {words}") from error
    except OSError as error:
        if not Path("~/.ray/auth_token").expanduser().is_relative_to(error.filename or ""):
            raise
        raise UnetsepError(
            f"Ray cannot keep its token in ~/.ray: {error.strerror} ({error.filename}); set "
            "RAY_AUTH_MODE to token, and RAY_AUTH_TOKEN to a secret of your own"
        ) from error
    return ray


def _require_answer(address: str) -> None:
    """Refuse an address where nothing listens, for which Ray would wait for minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError:  # Ray explains better what is wrong with it
        return
    if host and port:
        try:
            socket.create_connection((host, port), PATIENCE).close()
        except OSError as error:
            raise ConnectionError(f"nothing answers there ({error})") from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the signal handlers: Ray's end a program without a message, or with their own."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():
                    if handler is not None:  # None: not set by Python, so not restorable
                        signal.signal(number, handler)
    except SystemExit as error:
        if error.code == signal.SIGTERM:  # by Ray's handler, in place of ours
            signal.raise_signal(signal.SIGTERM)
        raise


class _SlotLostError(Exception):
    """A slot that was lost together with its song."""


class _RayRun:
    """Songs, slots, and which slot has which song."""

    def __init__(
        self,
        ray: Any,
        jobs: Sequence[Job],
        setup: SlotSetup,
        cluster: Cluster,
        listener: Listener,
    ) -> None:
        self._ray, self._setup, self._cluster = ray, setup, cluster
        self._listener = listener
        self.pending = deque(_Attempt(job) for job in jobs)
        self.running: dict[Any, tuple[Any, _Attempt]] = {}
        self._loading: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._last_look = -LOOK_EVERY
        self._failed_loads = 0
        # The kind of device of all slots, once one was ready, and the CPUs for each GPU.
        self._device: str | None = None
        self._cpus_per_gpu = CPUS_BESIDE_GPU

    def step(self) -> Generator[SongOutcome, None, None]:
        """Assign songs to idle slots, and wait for a moment."""
        if time.monotonic() - self._last_look >= LOOK_EVERY:
            self._last_look = time.monotonic()
            self._add_slots()
        self._assign()
        pending_refs = [*self._loading, *self.running]
        refs, _ = self._ray.wait(pending_refs, timeout=TICK) if pending_refs else ([], [])
        if not pending_refs:
            time.sleep(TICK)
        for ref in refs:
            if ref in self._loading:
                self._finish_loading(ref)
            elif outcome := self._finish_song(ref):
                yield outcome

    @property
    def _slots(self) -> int:
        return len(self._loading) + len(self._idle) + len(self.running)

    def _machines(self) -> list[ClusterMachine]:
        """The machines that are in the cluster now."""
        sizes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [ClusterMachine(int(size.get("CPU", 0)), int(size.get("GPU", 0))) for size in sizes]

    def _add_slots(self) -> None:
        """Request as many slots as fit on the machines now; some may have joined or left.

        Raises
        ------
        UnetsepError
            If a requested GPU is missing, or no machine is large enough, and no slot is loading
            or was ready before. If the cluster of this machine has ended.
        """
        machines = self._machines()
        if not machines and self._cluster.address is None:
            raise UnetsepError(
                "Ray has ended on this machine, perhaps for lack of memory: run the command again "
                "with --skip-existing, and with fewer --jobs"
            )
        self._cpus_per_gpu = cpus_beside_gpu(machines, self._cpus_per_gpu)
        # A run keeps its first kind of device, even while the first slots are only requested:
        # other devices round differently.
        first_device = self._device or next((device for _, device in self._loading.values()), None)
        device = slot_device(machines, first_device or self._cluster.device)
        threads = self._cluster.threads or (self._cpus_per_gpu if device == GPU else 1)
        needs = SlotNeeds(device, threads)
        if self._cluster.address is None:
            needs = needs.at_most(machines)
        if first_device is None:
            needs.require_machine(machines)
        room = needs.room(machines)
        limit = min(room, self._cluster.slots or room, len(self.pending) + self._slots)
        kind = self._ray.remote(Slot).options(max_concurrency=2, **needs.resources)
        for _ in range(limit - self._slots):
            slot = kind.remote()
            self._loading[slot.load.remote(self._setup, threads, device)] = slot, device

    def _get(self, ref: Any) -> Any:
        """Result of a slot.

        Raises
        ------
        _SlotLostError
            If the slot was lost: killed by the system or for its memory, or with its machine.
        """
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:  # of the code that ran there
            raise
        except self._ray.exceptions.RayError as error:
            raise _SlotLostError(" ".join(str(error).split())) from error

    def _finish_loading(self, ref: Any) -> None:
        slot, device = self._loading.pop(ref)
        try:
            version = self._get(ref)
        except _SlotLostError as error:
            self._failed_loads += 1  # a machine that stopped early, or one without memory
            self._last_look = -LOOK_EVERY
            if self._failed_loads >= LOSSES and not self._idle and not self.running:
                raise UnetsepError(
                    f"no worker of the cluster could load its models: {error}"
                ) from error
            return
        except UnetsepError as error:
            raise UnetsepError(str(getattr(error, "cause", error))) from error
        if version != __version__:
            raise UnetsepError(
                f"a machine of the cluster has unetsep {version}, this one {__version__}: "
                "install the same version everywhere"
            )
        self._idle.append(slot)
        self._failed_loads = 0
        self._device = device

    def _assign(self) -> None:
        for _ in range(len(self.pending)):
            if not self._idle:
                return
            attempt = self.pending.popleft()
            if attempt.not_before > time.monotonic():
                self.pending.append(attempt)
                continue
            slot = self._idle.pop()
            self._listener.begin(attempt.job)
            attempt.start_time = now()
            self.running[slot.separate.remote(self._task(attempt.job))] = slot, attempt

    def _task(self, job: Job) -> SlotTask:
        url = job.url if isinstance(job, RemoteJob) else None
        song = replace(job.song, path=job.song.path.absolute())
        base = self._setup.output
        if isinstance(base, str):  # a URL: stems are uploaded from the spool
            assert isinstance(job, RemoteJob)
            base = job.spool.out
        targets = [[path.absolute().relative_to(base) for path in p.targets] for p in job.parts]
        return SlotTask(song, url, targets, [part.first_signature for part in job.parts])

    def _finish_song(self, ref: Any) -> SongOutcome | None:
        """Outcome of a song whose slot has ended it or was lost; None if it is retried."""
        slot, attempt = self.running.pop(ref)
        try:
            reports, line, start_time = self._get(ref)
        except _SlotLostError:
            self._last_look = -LOOK_EVERY  # look for a replacement at once
            attempt.losses, attempt.lost_at = attempt.losses + 1, time.monotonic()
            if attempt.losses < LOSSES:
                self.pending.appendleft(attempt)
                return None
            reports = stopped_reports(attempt.job, f"took {LOSSES} workers down")
            reports = attempt.job.present(reports)
            return SongOutcome(attempt.job, reports, attempt.start_time)
        self._idle.append(slot)
        # The claim of a lost slot counts until it is stale.
        may_be_lost = attempt.losses and time.monotonic() < attempt.lost_at + 2 * STALE
        if may_be_lost and _is_claimed(reports):
            attempt.not_before = time.monotonic() + LOOK_EVERY
            self.pending.append(attempt)
            return None
        # With paths as the user wrote them, unless they are URLs.
        reports = [replace(report, source=attempt.job.display_path) for report in reports]
        return SongOutcome(attempt.job, reports, start_time, line)

    def end(self) -> None:
        """End all slots; running songs leave no files."""
        for slot, _ in self.running.values():
            slot.stop.remote()
        if self.running:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.wait(list(self.running), num_returns=len(self.running), timeout=GRACE)
        slots = [*self._idle, *(slot for slot, _ in self.running.values())]
        closing = [slot.close.remote() for slot in slots]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=GRACE)
        for slot in (*(slot for slot, _ in self._loading.values()), *slots):
            self._ray.kill(slot)


def _is_claimed(reports: Sequence[SeparationReport]) -> bool:
    """Whether a song was skipped because another run has claimed it."""
    return all((report.reason or "").startswith(BUSY) for report in reports)
