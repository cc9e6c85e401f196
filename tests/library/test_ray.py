from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from tests.signals import RATE, music
from unetsep.cli import main

STEMS = ("vocals", "drums", "bass", "other")
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


def test_workers_are_killed_and_no_song_is_lost_or_done_twice_without_a_network(
    tmp_path, tiny_model, environment
):
    pytest.importorskip("ray")
    source = tmp_path / "in"
    source.mkdir()
    for seed in range(5):
        soundfile.write(source / f"{seed}.wav", music(20, seed=seed).T, RATE)
    (source / "bad.wav").write_bytes(b"no audio")
    words = ["separate", str(source), "-m", str(tiny_model), "--precision", "fp32"]
    assert CliRunner().invoke(main, [*words, "-d", "cpu", "-o", str(tmp_path / "here")]).exit_code
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
    ],
)
def test_options_that_do_not_go_with_the_engine_are_refused(words, message):
    result = CliRunner().invoke(main, ["separate", "song.wav", *words])
    assert result.exit_code == 1
    assert message in result.stderr


def test_without_ray_the_extra_is_named(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    soundfile.write(tmp_path / "a.wav", music(0.2).T, RATE)
    words = ["separate", tmp_path / "a.wav", "-o", tmp_path / "out", "-m", tiny_model]
    result = CliRunner().invoke(main, [str(word) for word in (*words, "--engine", "ray")])
    assert result.exit_code == 1
    advice = "run pip install 'unetsep[ray]' or, in a checkout, pip install -e '.[ray]'"
    assert advice in result.stderr


def test_ray_reports_nothing_home_and_listens_on_this_machine_alone(monkeypatch):
    ray = pytest.importorskip("ray")
    from unetsep.library.ray import Cluster, _connect

    asked = []
    monkeypatch.setattr(ray, "init", lambda **keywords: asked.append(keywords))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    _connect(Cluster())
    _connect(Cluster(dashboard=True, slots=3, threads=2))
    _connect(Cluster(address="ray://head:10001"))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert [keywords.get("include_dashboard") for keywords in asked] == [False, True, None]
    assert asked[1]["dashboard_host"] == asked[0]["_node_ip_address"] == "127.0.0.1"
    assert [keywords.get("num_cpus") for keywords in asked] == [None, 6, None]
    assert [keywords["address"] for keywords in asked] == ["local", "local", "ray://head:10001"]
