from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile

from tests.commands import call
from tests.signals import RATE, music
from unetsep.errors import UnetsepError
from unetsep.file_options import FileOptions
from unetsep.files import SeparationReport
from unetsep.inputs import Input
from unetsep.library.batch import Listener, SongOutcome
from unetsep.library.log import now
from unetsep.library.ray import Cluster, SlotSetup, _connect, _RayRun
from unetsep.library.songs import Job
from unetsep.version import __version__

# Without a network but for the machine itself; Ray must find what it needs there.
CUT = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "cut"]


def cut() -> list[str]:
    """The words before a command that cut its network, where that is possible."""
    possible = shutil.which("unshare") and shutil.which("ip")
    if possible and not subprocess.run([*CUT, "true"], check=False).returncode:
        return CUT
    return []


def files(folder: Path) -> dict[str, str]:
    """Stems and their hashes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("[!.]*.wav")
    }


def kill_workers(out: Path, running: subprocess.Popen[str], count: int) -> set[int]:
    """Kill processes that have a song in hand, once another song is complete."""
    killed: set[int] = set()
    while running.poll() is None and len(killed) < count:
        time.sleep(0.005)
        if not list(out.rglob("vocals.wav")):
            continue
        for claim in out.rglob(".unetsep-*.lock"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                worker = int(claim.read_text().splitlines()[1].split()[1].partition("@")[0])
                assert worker != running.pid
                if worker not in killed and len(killed) < count:
                    os.kill(worker, signal.SIGKILL)
                    killed.add(worker)
    return killed


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    # Ray's sockets take no long paths.
    folder = tempfile.mkdtemp(prefix="r")
    spools = Path(folder) / "spools"
    spools.mkdir()
    yield os.environ | {"RAY_TMPDIR": folder, "TMPDIR": str(spools), "OMP_NUM_THREADS": "1"}
    shutil.rmtree(folder, ignore_errors=True)


def test_no_song_is_lost_or_repeated_when_workers_are_killed_offline(
    tmp_path, tiny_model, environment
):
    pytest.importorskip("ray")
    source = tmp_path / "in"
    source.mkdir()
    for seed in range(5):
        soundfile.write(source / f"{seed}.wav", music(20, seed=seed).T, RATE)
    (source / "bad.wav").write_bytes(b"no audio")
    words = ["separate", str(source), "-m", str(tiny_model), "--precision", "fp32"]
    assert call(*words, "-d", "cpu", "-o", tmp_path / "here").exit_code
    out = tmp_path / "out"
    command = [*cut(), sys.executable, "-m", "unetsep", *words, "-o", str(out)]
    command += ["--engine", "ray", "--jobs", "2", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        killed = kill_workers(out, running, 2)
        said, told = running.communicate(timeout=120)
    assert len(killed) == 2, told
    assert running.returncode == 1, told  # the bad file
    assert "1 of 6 failed" in told
    assert files(out) == files(tmp_path / "here")
    assert len(files(out)) == 20
    reports = [json.loads(line) for line in said.splitlines()]
    assert sorted(Path(r["source"]).stem for r in reports) == ["0", "1", "2", "3", "4", "bad"]
    # A worker that is killed after its song is complete, and before it can tell, leaves it to
    # the next one to find it there.
    statuses = sorted(r["status"] for r in reports)
    skipped = statuses.count("skipped")
    assert statuses == ["error"] + ["ok"] * (5 - skipped) + ["skipped"] * skipped
    assert skipped <= len(killed)
    (log,) = out.glob("unetsep-*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["track"] for line in lines) == ["0", "1", "2", "3", "4", "bad"]
    workers = {line["pid"] for line in lines}
    assert running.pid not in workers
    assert workers - killed  # others that took their places
    hidden = {path.name for path in out.rglob(".*")}
    assert hidden == {".unetsep.wav.json"}, hidden
    # Workers that were killed cannot tidy up; all others do.
    assert len(list(Path(environment["TMPDIR"]).glob("unetsep-*"))) <= len(killed)
    told_to = Path(environment["RAY_TMPDIR"])
    usage = [json.loads(path.read_text()) for path in told_to.rglob("usage_stats.json")]
    assert not [each for each in usage if each.get("usage_stats", {}).get("success")], usage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "auto"], "--address and --dashboard are for --engine ray"),
        (["--dashboard"], "--address and --dashboard are for --engine ray"),
        (["--engine", "ray", "--address", "auto", "--dashboard"], "leave out --address"),
        (["--engine", "ray", "-o", "-"], "--engine ray takes files and URLs"),
        (["--engine", "ray", "-d", "cuda:1"], "--engine ray chooses among a machine's GPUs"),
    ],
)
def test_options_that_the_engine_does_not_support_are_refused(words, message):
    result = call("separate", "song.wav", *words)
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_missing_ray_gets_a_message_with_the_extra(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    soundfile.write(tmp_path / "a.wav", music(0.2).T, RATE)
    words = ["separate", tmp_path / "a.wav", "-o", tmp_path / "out", "-m", tiny_model]
    result = call(*words, "--engine", "ray")
    assert result.exit_code == 1
    advice = 'run pip install "unetsep[ray]" or, in a checkout, pip install -e ".[ray]"'
    assert advice in result.stderr


def test_ray_sends_no_usage_statistics_and_listens_locally(monkeypatch):
    ray = pytest.importorskip("ray")
    asked = []
    monkeypatch.setattr(ray, "init", lambda **keywords: asked.append(keywords))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    called = []
    monkeypatch.setattr(
        "unetsep.library.ray.socket.create_connection",
        lambda place, _: called.append(place) or socket.socket(),
    )
    _connect(Cluster())
    _connect(Cluster(dashboard=True, slots=3, threads=2))
    _connect(Cluster(address="ray://head:10001"))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert [keywords.get("include_dashboard") for keywords in asked] == [False, True, None]
    assert asked[1]["dashboard_host"] == asked[0]["_node_ip_address"] == "127.0.0.1"
    assert [keywords.get("num_cpus") for keywords in asked] == [None, 6, None]
    assert [keywords["address"] for keywords in asked] == ["local", "local", "ray://head:10001"]
    assert called == [("head", 10001)]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_reported_at_once(scheme):
    pytest.importorskip("ray")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UnetsepError, match=f"at {address} cannot be used: nothing answers"):
            _connect(Cluster(address=address))


def test_a_home_without_room_for_a_token_is_named_with_what_helps(monkeypatch, tmp_path):
    ray = pytest.importorskip("ray")
    home = tmp_path / "home"

    def init(**_: object) -> None:
        path.mkdir()

    monkeypatch.setattr(ray, "init", init)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    home.touch()
    path = home
    with pytest.raises(UnetsepError, match=r"token in ~/\.ray: .*home.* set RAY_AUTH_MODE"):
        _connect(Cluster())
    path = tmp_path / "sessions"
    path.touch()
    with pytest.raises(FileExistsError):
        _connect(Cluster())


def test_sigterm_is_handled_by_unetsep_not_by_ray(monkeypatch):
    ray = pytest.importorskip("ray")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    try:
        _connect(Cluster())
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_while_ray_starts_ends_the_run_as_usual(monkeypatch):
    ray = pytest.importorskip("ray")

    def begin(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    monkeypatch.setattr(ray, "init", begin)
    try:
        with pytest.raises(SystemExit) as ended:
            _connect(Cluster())
        assert ended.value.code == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


class FakeRay:
    """Slots that are no processes: what they answer, or the error that ends them, is given.

    Parameters
    ----------
    machines
        CPUs and GPUs of each.
    answers
        Of slots, one after the other; those that are errors are raised.
    """

    def __init__(self, machines: Sequence[tuple[int, int]], answers: Sequence[object] = ()) -> None:
        self.exceptions = pytest.importorskip("ray").exceptions
        self._machines, self._answers = machines, list(answers)
        self.asked: list[dict[str, object]] = []

    def nodes(self) -> list[dict[str, object]]:
        alive = [
            {"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}
            for cpus, gpus in self._machines
        ]
        return [*alive, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]

    def remote(self, _: type) -> FakeRay:
        return self

    def options(self, **options: object) -> SimpleNamespace:
        def slot() -> SimpleNamespace:
            self.asked.append(options)
            call = SimpleNamespace(remote=lambda *_: object())
            return SimpleNamespace(load=call, separate=call)

        return SimpleNamespace(remote=slot)

    def wait(self, refs: Sequence[object], **_: object) -> tuple[list[object], list[object]]:
        count = min(1, len(self._answers))
        return list(refs[:count]), list(refs[count:])

    def get(self, _: object) -> object:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run_of(fake: FakeRay, songs: int, **words: Any) -> _RayRun:
    part: Any = SimpleNamespace(
        separator=SimpleNamespace(name="m"), targets=[], first_signature=None
    )
    jobs = [
        Job(Input(Path(f"{number}.wav"), f"{number}"), [part], False) for number in range(songs)
    ]
    setup = SlotSetup([["m"]], {}, FileOptions(), False, None, Path("out").absolute(), "")
    return _RayRun(
        fake, jobs, setup, Cluster(**{"address": "auto", "device": "cpu"} | words), Listener()
    )


def steps(run: _RayRun, count: int) -> list[SongOutcome]:
    return [outcome for _ in range(count) for outcome in run.step()]


def lost_slots() -> list[Exception]:
    errors = pytest.importorskip("ray").exceptions
    return [
        errors.OutOfMemoryError("Task was killed due to the node running low on memory"),
        errors.NodeDiedError("the node died"),
        errors.ActorUnschedulableError("no node"),
        errors.ActorDiedError(),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_song_is_retried_after_lost_slots_and_fails_at_the_third(number):
    lost = lost_slots()[number]
    done = ([SeparationReport(Path("0.wav"), "m", "ok")], {}, now())
    for losses, status in ((1, "ok"), (2, "ok"), (3, "error")):
        answers = [__version__, *(lost, __version__) * losses, done]
        run = run_of(FakeRay([(1, 0)], answers), 1)
        outcomes = steps(run, min(2 * losses + 2, 6))
        assert len(run._ray.asked) == min(losses + 1, 3)
        (report,) = outcomes[0].reports
        assert report.status == status
    assert report.error == "0.wav: took 3 workers down and was stopped"


@pytest.mark.parametrize("number", range(4))
def test_workers_lost_before_they_are_ready_end_the_run_with_a_message(number):
    run = run_of(FakeRay([(1, 0)], [lost_slots()[number]] * 3), 1)
    with pytest.raises(UnetsepError, match="no worker of the cluster could load its models: "):
        steps(run, 3)


def test_an_error_of_unetsep_on_another_machine_is_not_a_lost_slot():
    ray = pytest.importorskip("ray")
    error = ray.exceptions.RayTaskError("separate", "trace", ValueError("no"))
    run = run_of(FakeRay([(1, 0)], [__version__, error]), 1)
    with pytest.raises(ray.exceptions.RayTaskError):
        steps(run, 2)


@pytest.mark.parametrize(
    ("machines", "words", "slots", "options"),
    [
        ([(2, 0), (7, 0)], {"threads": 3}, 2, {"num_cpus": 3}),
        ([(2, 0), (3, 0)], {"slots": 3}, 3, {"num_cpus": 1}),
        ([(64, 0)], {}, 20, {"num_cpus": 1}),  # no more than songs
        ([(2, 0)], {"threads": 4, "address": None}, 1, {"num_cpus": 2}),
        ([(8, 4), (64, 0)], {"device": "auto"}, 4, {"num_cpus": 2, "num_gpus": 1}),
    ],
)
def test_slots_are_requested_with_their_resources(machines, words, slots, options):
    fake = FakeRay(machines)
    steps(run_of(fake, 20, **words), 1)
    assert fake.asked == [options | {"max_concurrency": 2}] * slots


def test_more_threads_than_any_machine_has_are_refused_at_once():
    run = run_of(FakeRay([(2, 0), (3, 0)]), 1, threads=4)
    with pytest.raises(UnetsepError, match="no machine of the cluster has 4 CPUs"):
        steps(run, 1)


def test_a_run_waits_for_a_machine_that_leaves_the_cluster():
    machines = [(4, 0)]
    run = run_of(FakeRay(machines, [__version__, lost_slots()[1]]), 1, threads=4)
    steps(run, 1)
    machines[:] = [(2, 0)]
    steps(run, 3)
    assert len(run.pending) == 1
    assert len(run._ray.asked) == 2


def test_a_run_does_not_wait_for_a_local_cluster_that_has_ended():
    machines = [(4, 0)]
    run = run_of(FakeRay(machines, [__version__, lost_slots()[1]]), 1, address=None)
    steps(run, 1)
    machines.clear()
    with pytest.raises(UnetsepError, match=r"^Ray has ended on this machine"):
        steps(run, 3)


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_run_waits_for_a_gpu_that_leaves_the_cluster(device):
    machines = [(2, 1), (8, 0)]
    fake = FakeRay(machines, [__version__, lost_slots()[1]])
    run = run_of(fake, 3, device=device)
    steps(run, 1)
    machines[:] = [(8, 0)]
    steps(run, 3)
    assert fake.asked == [{"num_cpus": 2, "num_gpus": 1, "max_concurrency": 2}] * 2


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        ((0, 0), (8, 2), {"num_cpus": 1}),  # of a cluster that grows
        ((8, 2), (8, 0), {"num_cpus": 4, "num_gpus": 1}),
    ],
)
def test_changes_of_machines_before_a_slot_is_ready_keep_the_device(
    before, after, asked, monkeypatch
):
    monkeypatch.setattr("unetsep.library.ray.LOOK_EVERY", 0.0)
    machines = [before]
    fake = FakeRay(machines)
    run = run_of(fake, 9, device="auto")
    steps(run, 1)
    machines[:] = [(0, 0), after]
    steps(run, 1)
    assert {device for _, device in run._loading.values()} == {"cuda" if before[1] else "cpu"}
    assert all(each == asked | {"max_concurrency": 2} for each in fake.asked)


def test_the_device_is_chosen_again_if_no_slot_loaded_its_models():
    machines = [(8, 2)]
    fake = FakeRay(machines, [lost_slots()[1]])
    run = run_of(fake, 1, device="auto")
    steps(run, 1)
    machines[:] = [(8, 0)]
    steps(run, 1)
    assert [each.get("num_gpus") for each in fake.asked] == [1, None]


def test_a_gpu_that_joins_during_a_run_is_not_used(monkeypatch):
    monkeypatch.setattr("unetsep.library.ray.LOOK_EVERY", 0.0)
    machines = [(2, 0)]
    fake = FakeRay(machines, [__version__])
    run = run_of(fake, 9, device="auto")
    steps(run, 1)
    machines[:] = [(2, 0), (4, 2)]
    steps(run, 1)
    assert fake.asked == [{"num_cpus": 1, "max_concurrency": 2}] * 6
