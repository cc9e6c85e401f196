from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.files import take_for_one
from unetsep.config import STEMS
from unetsep.errors import UnetsepError
from unetsep.train.data import cache
from unetsep.train.evaluation import results
from unetsep.train.evaluation.estimates import baseline_methods, folder_method, model_method
from unetsep.train.evaluation.evaluate import Outcome, Settings, evaluate
from unetsep.train.evaluation.tracks import Track, choose_tracks, find_tracks

MIXTURES = "mixture,mixture-4"


def run(root: Path, output: Path, baselines: str = MIXTURES, **options: object) -> list[Outcome]:
    settings = Settings(output, **options)  # type: ignore[arg-type]
    return evaluate(find_tracks(root, "test"), baseline_methods(baselines), settings)


def test_every_method_is_scored_on_every_track(root: Path, tmp_path: Path) -> None:
    seen: list[Outcome] = []
    tracks, methods = find_tracks(root, "test"), baseline_methods(MIXTURES)
    found = evaluate(tracks, methods, Settings(tmp_path), progress=seen.append)
    assert [(o.method, o.track) for o in found] == [
        (m.name, t.name) for m in methods for t in tracks
    ]
    assert len(seen) == 6
    for outcome in found:
        assert outcome.scores is not None
        assert not outcome.reused
        assert outcome.scores.values["SDR"].shape == (4, 3)


def test_existing_scores_are_reused_without_decoding(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(root, tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("nothing had to be decoded")

    monkeypatch.setattr("unetsep.train.evaluation.evaluate.read_track", refuse)
    second = run(root, tmp_path)
    assert all(outcome.reused for outcome in second)
    for a, b in zip(first, second, strict=True):
        assert a.scores is not None
        assert b.scores is not None
        np.testing.assert_array_equal(a.scores.values["SDR"], b.scores.values["SDR"])


def test_references_are_hashed_once_and_only_if_there_are_estimates(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "estimates").mkdir()
    methods = [folder_method(tmp_path / "estimates")]
    tracks = find_tracks(root, "test")
    hashed: list[Path] = []
    real = cache.file_sha256

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(cache, "file_sha256", counted)
    assert all(outcome.error for outcome in evaluate(tracks, methods, Settings(tmp_path / "out")))
    assert hashed == []
    run(root, tmp_path / "out")
    files = sorted(path for track in tracks for path in track.files)
    assert sorted(hashed) == files
    assert all(outcome.reused for outcome in run(root, tmp_path / "out"))
    assert len(hashed) == len(files)
    shutil.rmtree(tmp_path / "out" / ".hashes")  # as in results of versions before
    assert all(outcome.reused for outcome in run(root, tmp_path / "out"))


def test_other_audio_of_the_same_size_is_scored_again(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "songs")
    run(tmp_path / "songs", tmp_path / "out", "mixture-4")
    path = tmp_path / "songs" / "test" / "Ana - One" / "drums.wav"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = run(tmp_path / "songs", tmp_path / "out", "mixture-4")
    assert [outcome.track for outcome in again if not outcome.reused] == ["Ana - One"]


def test_missing_and_broken_scores_are_computed_again(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path)
    (tmp_path / "mixture" / "test" / "Ana - One.json").unlink()
    (tmp_path / "mixture-4" / "test" / "Cy - Instrumental.json").write_text('{"targ')
    again = [(o.method, o.track) for o in run(root, tmp_path) if not o.reused]
    assert again == [("mixture", "Ana - One"), ("mixture-4", "Cy - Instrumental")]


def test_another_duration_is_computed_again(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path)
    assert not any(outcome.reused for outcome in run(root, tmp_path, duration=2.0))


def test_a_model_with_other_weights_is_computed_again(
    root: Path, tmp_path: Path, tiny_model: Path
) -> None:
    tracks = find_tracks(root, "test")[:1]
    path = tmp_path / "net.safetensors"
    path.write_bytes(tiny_model.read_bytes())
    settings = Settings(tmp_path / "out", duration=1.0)
    assert not evaluate(tracks, [model_method([str(path)])], settings)[0].reused
    assert evaluate(tracks, [model_method([str(path)])], settings)[0].reused
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not evaluate(tracks, [model_method([str(path)])], settings)[0].reused


def test_full_metrics_are_reused_for_sdr_but_not_vice_versa(root: Path, tmp_path: Path) -> None:
    tracks = choose_tracks(find_tracks(root, "test"), ["Cy"])
    methods = baseline_methods("mixture-4")
    sdr, full = Settings(tmp_path, "sdr", 1.0), Settings(tmp_path, "bsseval", 1.0)
    assert not evaluate(tracks, methods, sdr)[0].reused
    assert not evaluate(tracks, methods, full)[0].reused
    assert evaluate(tracks, methods, sdr)[0].reused
    assert evaluate(tracks, methods, full)[0].reused


def test_a_song_with_a_silent_stem_is_scored_without_it(root: Path, tmp_path: Path) -> None:
    outcome = run(root, tmp_path, "mixture-4")[2]
    assert outcome.scores is not None
    assert outcome.scores.silent == ("vocals",)
    assert math.isnan(outcome.scores.median("vocals"))
    assert math.isfinite(outcome.scores.median("drums"))


def test_missing_estimates_are_reported_and_do_not_stop_others(root: Path, tmp_path: Path) -> None:
    (tmp_path / "estimates").mkdir()
    methods = [folder_method(tmp_path / "estimates"), *baseline_methods("mixture")]
    found = evaluate(find_tracks(root, "test"), methods, Settings(tmp_path / "out"))
    assert ["no estimates of" in outcome.error for outcome in found] == [True] * 3 + [False] * 3


def test_several_processes_give_the_scores_of_one_and_waits_have_timeouts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows hears no Ctrl-C while it waits without end."""
    limits = []
    really_get = queue.Queue.get

    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        if block:
            limits.append(timeout)
        return really_get(self, block, timeout)

    tracks, methods = find_tracks(root, "test")[:2], baseline_methods("mixture-4,oracle-2")
    one = evaluate(tracks, methods, Settings(tmp_path / "one"))
    monkeypatch.setattr(queue.Queue, "get", get)
    two = evaluate(tracks, methods, Settings(tmp_path / "two"), jobs=2)
    assert limits
    assert None not in limits
    assert [(o.method, o.track, o.error) for o in one] == [
        (o.method, o.track, o.error) for o in two
    ]
    for a, b in zip(one, two, strict=True):
        assert a.scores is not None
        assert b.scores is not None
        np.testing.assert_allclose(a.scores.values["SDR"], b.scores.values["SDR"], atol=1e-4)


SLOW = """
import time
from pathlib import Path
from unetsep.train.evaluation import evaluate

def work(track):
    Path(track).touch()
    time.sleep(600)

if __name__ == "__main__":
    try:
        list(evaluate._results(work, ["a", "b"], 2))
    except KeyboardInterrupt:
        print("ended")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there signals are others")
@pytest.mark.parametrize("begun", [False, True], ids=["starting", "working"])
def test_an_interrupt_stops_processes_at_once_and_quietly(tmp_path: Path, begun: bool) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    main = subprocess.Popen(
        [sys.executable, "slow.py"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[3])),
        start_new_session=True,
        **pipes,
    )
    children = Path(f"/proc/{main.pid}/task/{main.pid}/children")
    deadline = time.monotonic() + 100

    def ready() -> bool:
        # Beside the two there is what keeps track of their resources.
        there = len(children.read_text().split()) == 3
        return all((tmp_path / name).exists() for name in "ab") if begun else there

    try:
        if not (begun or children.exists()):
            pytest.skip("only Linux tells which processes a process started")
        while not ready():
            assert main.poll() is None, main.stderr and main.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if not begun:
            time.sleep(0.3)  # they are importing
        # A terminal sends it to all of them.
        (os.kill if begun else os.killpg)(main.pid, signal.SIGINT)
        said, complaints = main.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(main.pid, signal.SIGKILL)
    assert (said, complaints) == ("ended\n", "")


def test_processes_end_when_the_first_is_killed(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    main = subprocess.Popen(
        [sys.executable, "slow.py"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[3])),
        stdout=subprocess.PIPE,
    )
    deadline = time.monotonic() + 100
    while not all((tmp_path / name).exists() for name in "ab"):
        assert main.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    main.kill()
    # Its output ends when nobody is left who could write to it.
    assert main.communicate(timeout=60) == (b"", None)


def test_equal_names_of_methods_are_refused(root: Path, tmp_path: Path) -> None:
    tracks, methods = find_tracks(root, "test"), baseline_methods("mixture")
    with pytest.raises(ValueError, match="two methods are called 'mixture'"):
        evaluate(tracks, methods * 2, Settings(tmp_path))
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        evaluate(tracks, methods, Settings(tmp_path), jobs=0)


def test_a_stem_called_as_the_mean_over_stems_is_refused(tmp_path: Path) -> None:
    track = Track("song", "test", tmp_path, ("drums", "mean"))
    with pytest.raises(ValueError, match="song has a stem called mean, as reports"):
        evaluate([track], baseline_methods("mixture"), Settings(tmp_path))


def test_museval_reads_the_folder(root: Path, tmp_path: Path) -> None:
    museval = pytest.importorskip("museval")
    found = run(root, tmp_path)
    store = museval.EvalStore()
    store.add_eval_dir(tmp_path / "mixture-4")
    scores = store.agg_frames_tracks_scores().unstack()
    for stem in STEMS:
        mine = [o.scores.median(stem) for o in found[3:] if o.scores]
        assert scores["SDR"][stem] == pytest.approx(np.nanmedian(mine), abs=1e-4)
    assert scores["SAR"].isna().all()


def test_files_pass_musevals_schema(root: Path, tmp_path: Path) -> None:
    museval = pytest.importorskip("museval")
    run(root, tmp_path, "mixture")
    content = json.loads((tmp_path / "mixture" / "test" / "Ana - One.json").read_text())
    store = museval.TrackStore("Ana - One")
    store.scores = content
    store.validate()
    assert [target["name"] for target in content["targets"]] == list(STEMS)
    assert [frame["time"] for frame in content["targets"][0]["frames"]] == [0, 1, 2]


def test_files_of_museval_are_read(tmp_path: Path) -> None:
    museval = pytest.importorskip("museval")
    store = museval.TrackStore("Song")
    frames = {m: [1.0, math.nan, math.inf] for m in ("SDR", "ISR", "SIR", "SAR")}
    store.add_target("vocals", frames)
    store.save(str(tmp_path / "song.json"))
    scores, about = results.read(tmp_path / "song.json")
    np.testing.assert_array_equal(scores.values["SDR"], [[1, math.nan, math.nan]])
    assert about == {}


def test_a_file_without_scores_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1, 2]")
    with pytest.raises(UnetsepError, match="no scores in museval's layout"):
        results.read(tmp_path / "x.json")
    (tmp_path / "y.json").mkdir()  # stands for one on a drive that fails
    with pytest.raises(UnetsepError, match=r"y\.json cannot be read: (Is a directory|Permission)"):
        results.read(tmp_path / "y.json")


def test_names_from_an_index_become_valid_file_names_on_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A colon there begins the name of a stream in a file that hides it."""
    track = Track("AC: DC/Why?", "test", Path("song"))
    assert results.file_name(track) == "AC: DC_Why?"
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        name = results.file_name(track)
    assert name == "AC_ DC_Why_"


def test_names_that_a_drive_refuses_or_confuses_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*names: str) -> None:
        results.check_names([Track(name, "test", Path(name)) for name in names], tmp_path)

    original = Path.touch

    def touch(self: Path, exist_ok: bool = True) -> None:
        if "?" in self.name:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        original(self, exist_ok=exist_ok)

    check("What?", "plain", "Plain", "Ärger")  # as this drive takes them
    monkeypatch.setattr(Path, "touch", touch)
    take_for_one(monkeypatch, str.casefold)
    check("Plain", "Ärger")
    with pytest.raises(UnetsepError, match=r"takes no such name as 'What\?\.json': choose another"):
        check("Plain", "What?")
    with pytest.raises(UnetsepError, match=r"the tracks 'Plain' and 'plain' have one name on the"):
        check("Plain", "Other", "plain")
    assert not list(tmp_path.iterdir())


def test_results_that_cannot_be_written_are_reported(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mixture").write_text("a file where a folder must be")
    with pytest.raises(UnetsepError, match="cannot be written"):
        run(root, tmp_path, "mixture")
