from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from tests.signals import RATE, noise
from tests.weights.test_model import JOINT, STATES, guided_network
from unetsep.config import STEMS
from unetsep.train.evaluation.scoring import TrackScores

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, BENCHMARKS / name, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_gpu_benchmark_runs_on_a_cpu_too(tmp_path: Path, tiny_model: Path) -> None:
    sizes = ["--seconds", 1, "--songs", 2, "--song-seconds", 1, "--segments", 1, "--jobs", 2]
    sizes += ["--folder", tmp_path, "--disk", tmp_path]
    sizes += ["--json", tmp_path / "gpu.json"]
    run("gpu.py", "--device", "cpu", "--model", tiny_model, *sizes)
    content = json.loads((tmp_path / "gpu.json").read_text())
    rows = content["results"]["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "tf32", "bf16"]
    assert all(row[key] > 0 for row in rows for key in ("network", "long", "folder"))
    bounds = content["results"]["bounds"]
    assert all(bounds[key] > 0 for key in ("read", "write", "write_disk"))
    assert content["machine"]["date"]


def test_operations_include_those_that_show_a_network_the_states_of_its_guide() -> None:
    from network import operations, segment

    def count(**parts: Any) -> int:
        torch.manual_seed(0)
        network = guided_network(**parts)
        with torch.inference_mode():
            return operations(network, segment(network))

    # One lateral connection, whose products are counted as two operations each.
    (states,), positions = STATES, 256 * JOINT.bins // 2
    assert count(guide_states=STATES) - count() == 2 * states * JOINT.filters[0] * positions


def test_the_training_benchmark_for_gpus_runs_on_a_cpu_too(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from train_gpu import main

    sizes = ["--batch-size", 1, "--clip-frames", 64, "--steps", 2, "--traced", 1, "--workers", 0]
    results = ["--precision", "fp32", "--json", tmp_path / "train.json"]
    words = ["train_gpu.py", "--device", "cpu", "--model", tiny_model, *sizes, *results]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    main()
    told = capsys.readouterr().out
    (row,) = json.loads((tmp_path / "train.json").read_text())["results"]["rows"]
    assert (row["precision"], row["recorded"]) == ("fp32", False)
    assert row["ms"] > 0
    assert f"ms {row['ms']}" in told


def test_a_gpu_is_busy_once_whatever_it_does_at_a_time() -> None:
    from train_gpu import busy, launches

    trace: list[dict[str, Any]] = [
        {"cat": "kernel", "name": "a", "ts": 10.0, "dur": 5.0},
        {"cat": "kernel", "name": "inside", "ts": 11.0, "dur": 1.0},
        {"cat": "gpu_memcpy", "name": "across", "ts": 14.0, "dur": 6.0},
        {"cat": "kernel", "name": "later", "ts": 1000.0, "dur": 4.0},
        {"cat": "gpu_user_annotation", "name": "step", "ts": 0.0, "dur": 5000.0},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 0.0, "dur": 3.0},
        {"cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 4.0, "dur": 3.0},
        {"cat": "cuda_runtime", "name": "cudaStreamSynchronize", "ts": 8.0, "dur": 900.0},
        {"name": "process_name"},
    ]
    assert busy(trace) == pytest.approx(14e-6)
    assert launches(trace) == 2


def test_the_metrics_of_a_folder_are_timed_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import metrics

    for number, stem in enumerate(STEMS):
        soundfile.write(tmp_path / f"{stem}.wav", noise(number, 2 * RATE).T / 8, RATE)
    scored = []

    def score(references: Any, *others: Any, mode: str) -> TrackScores:
        scored.append((mode, references["vocals"].shape[1]))
        return exact(references, *others, mode="bsseval" if mode == "museval" else mode)

    exact = metrics.score
    monkeypatch.setattr(metrics, "score", score)  # museval takes ten seconds
    words = [str(tmp_path), "--seconds", "1", "--repeat", "1"]
    words += ["--threads", str(torch.get_num_threads())]
    result = CliRunner().invoke(metrics.main, words, catch_exceptions=False)
    assert scored == [(mode, RATE) for mode in metrics.MODES]
    assert "bsseval SDR: at most 0.0e+00 dB from museval" in result.output


def test_stages_add_up_to_the_process(tmp_path: Path, tiny_model: Path) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((100_000, 2)), 44_100)
    path = tmp_path / "stages.json"
    run("stages.py", tmp_path / "song.wav", "--model", tiny_model, "--rounds", 1, "--json", path)
    (result,) = json.loads(path.read_text())["results"]
    stages = result["stages"]
    for stage in ("import torch", "weights", "STFT", "network", "inverse STFT", "encode and write"):
        assert stages[stage] > 0, stage
    assert stages["rest"] >= 0


def test_a_measured_process_is_charged_for_its_time_and_memory() -> None:
    from record import measure

    code = "b = bytearray(200 << 20); b[::4096] = bytes(len(b[::4096])); sum(range(10**6))"
    used = measure([sys.executable, "-c", code])
    assert used.peak_mib > 200
    assert used.cpu > 0
    assert used.wall > 0


def test_a_failing_process_shows_what_it_said() -> None:
    from record import measure

    with pytest.raises(SystemExit, match="no such thing"):
        measure([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_songs_have_their_length_and_16_bits(tmp_path: Path) -> None:
    from record import excerpt, synthesise

    synthesise(tmp_path / "a.wav", 1.5)
    excerpt(tmp_path / "a.wav", tmp_path / "b.wav", 4)
    for name, seconds in (("a.wav", 1.5), ("b.wav", 4)):
        info = soundfile.info(tmp_path / name)
        assert (info.duration, info.channels, info.subtype) == (seconds, 2, "PCM_16")


def test_ratios_are_those_of_one_round() -> None:
    from peers import summary
    from record import Use

    ours = [Use(1.0, 1.0, 10.0), Use(2.0, 2.0, 11.0), Use(1.0, 1.0, 12.0)]
    theirs = [Use(8.0, 8.0, 50.0), Use(18.0, 9.0, 60.0), Use(10.0, 9.0, 55.0)]
    rows = summary({"unetsep": ours, "other": theirs}, 180.0)
    assert (rows[1]["times_as_long"], rows[1]["least"], rows[1]["most"]) == (9.0, 8.0, 10.0)
    assert rows[1]["peak_mib"] == 60.0
    assert rows[0]["times_real_time"] == 180.0


def test_a_line_through_times_gives_start_and_slope() -> None:
    from scaling import fit

    rows = [{"seconds": s, "threads": 2, "wall": 1.5 + 0.02 * s} for s in (10, 60, 600, 7200)]
    line = fit([*rows, {"seconds": 10, "threads": 1, "wall": 99.0}], 2)
    assert line["start"] == pytest.approx(1.5)
    assert line["slope"] == pytest.approx(0.02)
    assert line["largest_error"] < 1e-9


def test_every_tool_of_the_comparison_is_pinned() -> None:
    from environments import REQUIREMENTS, TOOLS

    assert set(TOOLS) >= {"unetsep", *REQUIREMENTS}
    for name, requirements in REQUIREMENTS.items():
        assert any(word.startswith(f"{name}==") for word in requirements)


@pytest.mark.parametrize(
    ("module", "words", "told"),
    [
        ("peers", ["--once", "unetsep"], "every round is compared with unetsep"),
        ("peers", ["--once", "nobody"], "invalid choice"),
        ("scaling", ["--seconds", "2"], "a line takes two lengths"),
        ("stages", ["--source", "a/one", "b/one"], "needs a name of its own"),
        ("stages", ["--source", "a", "b", "--name", "x"], "needs a name of its own"),
    ],
)
def test_what_a_benchmark_would_mistake_is_refused(
    module: str,
    words: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{module}.py", *words])
    with pytest.raises(SystemExit):
        importlib.import_module(module).main()
    assert told in capsys.readouterr().err
