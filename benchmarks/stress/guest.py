"""unetsep as a guest: habits of programs that use it as a library, each in a process of its own.

    python benchmarks/stress/guest.py [--model PATH] [--rounds 1] [--only fork,threads]

Each habit must give the same stems as a plain program, within 2e-5, lose no line that the host
writes, and find its settings as they were. Prints a line for each habit; the exit code is 1 if
one failed. Needs os.fork.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from unetsep.api import separate_to_files
from unetsep.separator import Separator

RATE = 44_100
SECONDS = 3
PATIENCE = 300
LINES = 200

Stems = dict[str, np.ndarray]


@dataclass(frozen=True)
class Visit:
    """What a habit works with: a model, a song as array and as files, and the right stems."""

    model: str
    folder: Path
    audio: np.ndarray
    expected: Stems

    def separator(self) -> Separator:
        """The model, on the CPU."""
        return Separator(self.model, device="cpu", precision="fp32")

    def check(self, stems: Stems) -> None:
        """Compare with the right stems."""
        assert set(stems) == set(self.expected)
        for name, stem in self.expected.items():
            assert stems[name].dtype == np.float32
            np.testing.assert_allclose(stems[name], stem, atol=2e-5)

    def work(self) -> None:
        """Load, separate an array, a stream and files."""
        separator = self.separator()
        self.check(dict(separator.separate(self.audio, RATE)))
        pieces = (self.audio[:, at : at + 700] for at in range(0, self.audio.shape[1], 700))
        parts = list(separator.stream(pieces, RATE))
        self.check({n: np.concatenate([p[n] for p in parts], axis=-1) for n in separator.stems})
        self.files(separator)

    def files(self, separator: Separator, name: str = "song.wav") -> None:
        """Separate a file into files."""
        with tempfile.TemporaryDirectory(dir=self.folder) as out:
            report = separate_to_files(
                self.folder / name, out, model=separator, bit_depth="32f", overwrite=True
            )
            stems = {n: soundfile.read(p, dtype="float32")[0].T for n, p in report.stems.items()}
        if name == "song.wav":
            self.check(stems)


def plain(visit: Visit) -> None:
    """No habit at all."""
    visit.work()


def double_precision(visit: Visit) -> None:
    """New tensors are float64."""
    torch.set_default_dtype(torch.float64)
    visit.work()
    assert torch.get_default_dtype() == torch.float64


def half_precision(visit: Visit) -> None:
    """New tensors are bfloat16."""
    torch.set_default_dtype(torch.bfloat16)
    visit.work()


def meta_device(visit: Visit) -> None:
    """New tensors have no memory."""
    torch.set_default_device("meta")
    visit.work()
    assert torch.empty(1).is_meta


def within_inference_mode(visit: Visit) -> None:
    """All of it under inference_mode, then training continues."""
    with torch.inference_mode():
        visit.work()
    assert not torch.is_inference_mode_enabled()
    weight = torch.ones(2, requires_grad=True)
    (weight * 2).sum().backward()


def within_autocast(visit: Visit) -> None:
    """All of it under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        visit.work()


def deterministic(visit: Visit) -> None:
    """Only deterministic algorithms."""
    torch.use_deterministic_algorithms(True)
    visit.work()


def two_at_once(visit: Visit) -> None:
    """Two songs at once, again and again; numbers of threads stay."""
    torch.set_num_threads(2)
    separator = visit.separator()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: visit.files(separator), range(8)))
        numbers = set(pool.map(lambda _: torch.get_num_threads(), range(8)))
    fresh: list[int] = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert numbers == {2}, numbers
    assert fresh == [2], fresh
    assert torch.get_num_threads() == 2


def own_number_of_threads(visit: Visit) -> None:
    """A host with a number of threads that is not the machine's."""
    torch.set_num_threads(3)
    visit.work()
    assert torch.get_num_threads() == 3


def fork_after_loading(visit: Visit) -> None:
    """Load, then fork, as gunicorn --preload does."""
    torch.set_num_threads(2)
    separator = visit.separator()
    _in_children(3, lambda: visit.check(dict(separator.separate(visit.audio, RATE))))


def fork_after_separating(visit: Visit) -> None:
    """Load and separate, then fork, and separate in both."""
    torch.set_num_threads(2)
    separator = visit.separator()
    visit.files(separator)
    separator.separate(visit.audio, RATE)
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)
    _in_children(2, lambda: visit.files(separator))
    visit.check(dict(separator.separate(visit.audio, RATE)))


def pool_with_fork(visit: Visit) -> None:
    """A multiprocessing pool that forks."""
    global _shared
    torch.set_num_threads(2)
    _shared = (visit.separator(), visit)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_shared_work, range(4)) == [True] * 4


_shared: tuple[Separator, Visit] | None = None


def _shared_work(_: int) -> bool:
    assert _shared is not None
    separator, visit = _shared
    visit.check(dict(separator.separate(visit.audio, RATE)))
    return True


def _in_children(count: int, work: Callable[[], None]) -> None:
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            _leave(work)
        children.append(child)
    for child in children:
        assert _wait(child) == 0, "a child failed"


def lines_on_stderr(visit: Visit) -> None:
    """The host writes lines to descriptor 2 while mp3 is read; none is lost or out of order."""
    separator = visit.separator()
    with _stderr_file() as caught:
        stop, lines = threading.Event(), []

        def write() -> None:
            while not stop.is_set() or len(lines) < LINES:
                line = b"host %d\n" % len(lines)
                os.write(2, line)
                assert os.fstat(2).st_ino == os.fstat(caught.fileno()).st_ino
                lines.append(line)
                time.sleep(0.001)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            visit.files(separator, "song.mp3")
        finally:
            stop.set()
            thread.join()
        caught.seek(0)
        assert [line for line in caught if line.startswith(b"host")] == lines


def programs_meanwhile(visit: Visit) -> None:
    """The host starts programs while mp3 is read; their stderr is the host's."""
    separator = visit.separator()
    with _stderr_file() as caught:
        thread = threading.Thread(target=visit.files, args=(separator, "song.mp3"))
        thread.start()
        count = 0
        while thread.is_alive() or count == 0:
            subprocess.run(["sh", "-c", f"echo program {count} >&2"], check=True)
            count += 1
        thread.join()
        caught.seek(0)
        lines = [line for line in caught if line.startswith(b"program")]
        assert lines == [b"program %d\n" % i for i in range(count)]


@contextlib.contextmanager
def _stderr_file() -> Iterator[tempfile._TemporaryFileWrapper[bytes]]:
    with tempfile.NamedTemporaryFile() as caught:
        descriptor = os.dup(2)
        os.dup2(os.open(caught.name, os.O_WRONLY | os.O_APPEND), 2)
        try:
            yield caught
        finally:
            os.dup2(descriptor, 2)


def no_stderr(visit: Visit) -> None:
    """Descriptor 2 is closed, as services do."""
    os.close(2)
    visit.work()
    visit.files(visit.separator(), "song.mp3")


def no_standard_streams(visit: Visit) -> None:
    """None of the three descriptors is open, and Python knows none."""
    for descriptor in range(3):
        os.close(descriptor)
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]
    visit.work()
    visit.files(visit.separator(), "song.mp3")


def warnings_are_errors(visit: Visit) -> None:
    """Every warning is an exception."""
    warnings.simplefilter("error")
    visit.work()


def numbers_are_watched(visit: Visit) -> None:
    """Underflow, overflow and the rest raise in numpy."""
    with np.errstate(all="raise"):
        visit.work()
        quiet = visit.separator().separate(visit.audio * np.float32(1e-30), RATE)
    assert all(np.isfinite(stem).all() for stem in quiet.values())


def small_stacks(visit: Visit) -> None:
    """New threads have little stack."""
    threading.stack_size(256 * 1024)
    visit.work()


def an_event_loop(visit: Visit) -> None:
    """Called in threads of asyncio, several at once."""
    separator = visit.separator()

    async def main() -> list[Stems]:
        calls = [asyncio.to_thread(separator.separate, visit.audio, RATE) for _ in range(3)]
        return list(await asyncio.gather(*calls))

    for stems in asyncio.run(main()):
        visit.check(stems)


def streams_left_open(visit: Visit) -> None:
    """Streams that are not read to the end leave no threads."""
    separator = visit.separator()
    threads = _threads()
    for _ in range(5):
        stream = separator.stream([visit.audio] * 4, RATE)
        next(stream)
        del stream
    gc.collect()
    assert _threads() == threads, _threads()


def settings_stay(visit: Visit) -> None:
    """Signals, descriptors, folder, mask, environment and settings are as they were."""

    def now() -> tuple[object, ...]:
        mask = os.umask(0)
        os.umask(mask)
        return (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            sorted(Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").is_dir() else None,
            (Path.cwd(), mask, dict(os.environ), warnings.filters[:], np.geterr()),
            (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
            (gc.isenabled(), sys.excepthook, _threads()),
        )

    visit.work()
    old = now()
    visit.work()
    visit.files(visit.separator(), "song.mp3")
    new = now()
    differences = [
        (old_value, new_value)
        for old_value, new_value in zip(old, new, strict=True)
        if old_value != new_value
    ]
    assert not differences, differences
    assert _threads() == ["MainThread"], _threads()


def _threads() -> list[str]:
    """Names of all threads, once those that are about to end had time to."""
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return [thread.name for thread in threading.enumerate()]


HABITS: dict[str, Callable[[Visit], None]] = {
    habit.__name__.replace("_", " "): habit
    for habit in (
        *(plain, double_precision, half_precision, meta_device, within_inference_mode),
        *(within_autocast, deterministic, two_at_once, own_number_of_threads),
        *(fork_after_loading, fork_after_separating, pool_with_fork),
        *(lines_on_stderr, programs_meanwhile, no_stderr, no_standard_streams),
        *(warnings_are_errors, numbers_are_watched, small_stacks, an_event_loop),
        *(streams_left_open, settings_stay),
    )
}


def prepare(folder: Path, model: str) -> Visit:
    """Write the song, as wav and mp3, and separate it in a process without habits."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(SECONDS * RATE) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 220 * time_axis)
    audio = (tone + 0.05 * rng.standard_normal((2, len(time_axis)))).astype(np.float32)
    soundfile.write(folder / "song.wav", audio.T, RATE, subtype="FLOAT")
    soundfile.write(folder / "song.mp3", audio.T, RATE)
    child = os.fork()
    if child == 0:
        separator = Separator(model, device="cpu", precision="fp32")
        _leave(lambda: np.savez(folder / "stems.npz", **separator.separate(audio, RATE)))
    assert _wait(child) == 0, "a plain program failed"
    with np.load(folder / "stems.npz") as stems:
        return Visit(model, folder, audio, dict(stems))


def run(habit: Callable[[Visit], None], visit: Visit) -> bool:
    """Run a habit in a fork of this process, which has only imported; whether it worked."""
    child = os.fork()
    if child == 0:
        _leave(lambda: habit(visit))
    return _wait(child) == 0


def _leave(work: Callable[[], object]) -> None:
    """Work and end the process, even after an error."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        if sys.stderr is not None:
            traceback.print_exc()
    finally:
        os._exit(code)


def _wait(child: int) -> int:
    """The exit code of a process; of one that hangs, that of its end."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Run all habits and say which failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="default")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", type=lambda text: text.split(","))
    options = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        visit = prepare(Path(folder), options.model)
        for name, habit in HABITS.items():
            if options.only and not any(word in name for word in options.only):
                continue
            for _ in range(options.rounds):
                start = time.perf_counter()
                is_ok = run(habit, visit)
                failures += not is_ok
                word = "ok" if is_ok else "FAILED"
                print(f"{name:24s} {word:6s} {time.perf_counter() - start:6.1f} s", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
