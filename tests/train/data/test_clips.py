"""Clips depend on (seed, index) alone, differ, and are the same in memory of any kind."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.synthetic import MODEL, pcm, song, songs, tiny
from unetsep.config import STEMS
from unetsep.train.config import TrainingError
from unetsep.train.data.augment import on_device
from unetsep.train.data.clip_plans import SILENCE, ClipPlanner, draw_weights
from unetsep.train.data.clips import (
    ClipBatches,
    ClipDataset,
    PlanDataset,
    ResidentClips,
    clip_indices,
)
from unetsep.train.data.loaders import NO_NUMBER, ClipLoader, clip_loader, valid_loader
from unetsep.train.data.recording import LEVEL_BLOCK, hold_out, recording_from_arrays
from unetsep.train.data.run_data import apply_leave_out
from unetsep.train.datamodule import ClipModule

CONFIG = tiny(seed=3)


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("mps", True)])
def test_only_cuda_copies_clips_asynchronously(
    monkeypatch: pytest.MonkeyPatch, device: str, waits: bool
) -> None:
    copies: list[tuple[str, bool]] = []

    def copy(tensor: torch.Tensor, to: torch.device, non_blocking: bool = False) -> torch.Tensor:
        copies.append((to.type, not non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "to", copy)
    there, clips = torch.device(device), torch.zeros(1, 4, 2, 8)
    data = ClipModule(CONFIG, songs()[0], [])
    assert data.transfer_batch_to_device(clips, there, 0) is clips
    assert on_device(clips, there) is clips
    assert copies == 2 * [(device, waits)]
    loader = clip_loader(data.planner, ClipBatches(1, 0), there, workers=0)
    assert loader.pin_memory != waits


def planner(**changed: object) -> ClipPlanner:
    return ClipPlanner(songs()[0], tiny(seed=3, **changed))


def test_a_clip_depends_on_seed_and_index_alone() -> None:
    first, again = ClipDataset(planner()), ClipDataset(planner())
    first[5]  # what was drawn before does not matter
    assert torch.equal(first[11], again[11])
    other = ClipDataset(ClipPlanner(songs()[0], tiny(seed=4)))
    assert not torch.equal(first[11], other[11])


def test_almost_every_clip_has_a_new_crop() -> None:
    drawn = planner()
    plans = [drawn.plan(i) for i in range(200)]
    for stem in range(len(STEMS)):
        places = {(int(p.numbers[stem]), int(p.starts[stem])) for p in plans}
        assert len(places) > 180


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
def test_loader_workers_do_not_change_the_clips() -> None:
    dataset = ClipDataset(planner())
    batches = ClipBatches(batch_size=2, first_step=4)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=batches, num_workers=2)
    for step, batch in zip(range(4, 7), loader, strict=False):
        assert torch.equal(batch, torch.stack([dataset[i] for i in clip_indices(step, 2)]))


def test_a_copy_in_another_process_gives_the_same_clips() -> None:
    """As workers get one where processes are not forked: on macOS, Windows and Python 3.14."""
    dataset = ClipDataset(planner(coherent_share=0.5, second_share={"other": 0.5}))
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(PlanDataset(copy.planner)[1].numbers) == 2 * len(STEMS)
    for index in range(20):
        assert torch.equal(dataset[index], copy[index])
    assert any(dataset.planner.plan(i).numbers[:4].min() != SILENCE for i in range(20))


def test_ranks_share_no_clip_and_together_see_those_of_one_process() -> None:
    seen = [clip_indices(step, 3, rank, 4) for step in range(5) for rank in range(4)]
    flat = [index for batch in seen for index in batch]
    assert flat == list(range(60))
    assert clip_indices(2, 12) == [index for batch in seen[8:12] for index in batch]


def test_validation_songs_are_divided_and_every_process_has_one() -> None:
    two = songs()[1]
    shares = [[*valid_loader(two, rank, 3)] for rank in range(3)]
    assert [number for ((number, _),) in shares] == [0, 1, NO_NUMBER]
    assert [song.name for ((_, song),) in shares] == ["song8", "song9", "song8"]
    assert [number for number, _ in valid_loader([*two, two[0]], 0, 2)] == [0, 2]


def test_coherent_clips_come_from_one_place_in_one_song() -> None:
    aligned = planner(coherent_share=1.0, drop_share=0.0)
    for index in range(20):
        plan = aligned.plan(index)
        assert len(set(plan.starts.tolist())) == 1
        assert (
            len({aligned.recorded_stems[number][0].name for number in plan.numbers.tolist()}) == 1
        )


def test_random_mixtures_come_from_several_songs() -> None:
    mixed = planner(coherent_share=0.0, drop_share=0.0)
    names = [
        len({mixed.recorded_stems[t][0].name for t in mixed.plan(i).numbers.tolist()})
        for i in range(20)
    ]
    assert max(names) == 4


def test_gain_polarity_swap_and_dropout_are_random_within_bounds() -> None:
    drawn = planner(drop_share=0.5, gain_db=6.0)
    plans = [drawn.plan(i) for i in range(200)]
    gains = torch.stack([p.gains for p in plans])
    assert float(gains.abs().max()) <= 10 ** (6 / 20) + 1e-6
    assert float(gains.abs().min()) >= 10 ** (-6 / 20) - 1e-6
    assert 0.4 < float((gains < 0).float().mean()) < 0.6
    assert 0.4 < float(torch.stack([p.swapped for p in plans]).float().mean()) < 0.6
    silent = torch.stack([p.numbers == SILENCE for p in plans]).sum(dim=1)
    assert int(silent.max()) == 3  # one stem always remains


def test_coherent_clips_can_have_their_own_range_of_gains() -> None:
    coherent = {"coherent_share": 1.0, "gain_db": 6.0, "drop_share": 0.0}
    same, narrow = planner(**coherent), planner(**coherent, coherent_gain_db=2.0)
    for index in range(20):
        before, after = same.plan(index), narrow.plan(index)
        assert torch.equal(before.numbers, after.numbers)
        assert torch.equal(before.gains.sign(), after.gains.sign())
        drawn = [20 * plan.gains.abs().log10() for plan in (before, after)]
        torch.testing.assert_close(drawn[1] * 3, drawn[0], rtol=1e-3, atol=1e-3)
    mixed = {"coherent_share": 0.0, "gain_db": 6.0}
    assert torch.equal(
        planner(**mixed, coherent_gain_db=2.0).plan(5).gains, planner(**mixed).plan(5).gains
    )
    with pytest.raises(ValueError, match="coherent_gain_db=-1"):
        tiny(coherent_gain_db=-1.0)


def test_unknown_stems_are_never_part_of_a_mixture() -> None:
    loud = pcm(1)
    unknown = recording_from_arrays("unknown", {"vocals": loud, "drums": loud}, origin="songs")
    known = recording_from_arrays(
        "known", {"drums": loud, "other": loud}, origin="songs", silent=("vocals", "bass")
    )
    both = ClipPlanner([unknown, known, song(5)], tiny(coherent_share=1.0, drop_share=0.0))
    names = set()
    for index in range(60):
        numbers = both.plan(index).numbers.tolist()
        names |= {both.recorded_stems[number][0].name for number in numbers if number != SILENCE}
    assert names == {"known", "song5"}


def test_pools_are_drawn_by_their_share() -> None:
    pools = [
        recording_from_arrays(f"pool{i}", {"bass": pcm(50 + i)}, origin="pools", extra=True)
        for i in (0, 1)
    ]
    mixed = ClipPlanner([*songs()[0], *pools], tiny(coherent_share=0.0, extra_share={"bass": 0.25}))
    origins = [mixed.recorded_stems[int(mixed.plan(i).numbers[2])][0].origin for i in range(400)]
    assert 0.15 < origins.count("pools") / 400 < 0.35


def test_an_artist_is_parsed_from_the_name_of_a_recording() -> None:
    names = {
        "Actions - One Minute Smile": "Actions",
        "everything-is-free-caesium": "everything-is-free",
        "vocals/singer-03": "vocals/singer",
        "lone": "lone",
        "A-B - C - D": "A-B",
    }
    for name, artist in names.items():
        assert dataclasses.replace(song(1), name=name).artist == artist


def test_artists_with_many_recordings_can_be_drawn_less() -> None:
    lengths = {"A - 1": 4, "A - 2": 4, "A - 3": 1, "B - 1": 9}
    recordings = [
        dataclasses.replace(song(1), name=name, stop=1000 * length)
        for name, length in lengths.items()
    ]
    plain = draw_weights(recordings, by_artist=False) / np.sqrt(1000)
    assert plain.tolist() == pytest.approx([2, 2, 1, 3])
    fair = draw_weights(recordings, by_artist=True) / np.sqrt(1000)
    assert fair.tolist() == pytest.approx([3 * 0.4, 3 * 0.4, 3 * 0.2, 3])
    recordings[3] = dataclasses.replace(recordings[3], weight=0.1)
    for by_artist, expected in ((False, [2, 2, 1, 0.3]), (True, [1.2, 1.2, 0.6, 0.3])):
        weighted = draw_weights(recordings, by_artist=by_artist) / np.sqrt(1000)
        assert weighted.tolist() == pytest.approx(expected)
    recordings[3] = dataclasses.replace(recordings[3], weight=1.0)
    few = ClipPlanner(recordings, tiny(artist_weights=True, coherent_share=1.0, clip_frames=4))
    drawn = [few.recorded_stems[int(few.plan(i).numbers.max())][0].artist for i in range(400)]
    assert drawn.count("A") / 400 == pytest.approx(0.5, abs=0.08)


def test_second_recordings_join_random_mixtures_alone() -> None:
    shares = {"vocals": 0.5, "other": 1.0}
    alone = planner(coherent_share=0.5)
    joined = planner(coherent_share=0.5, second_share=shares)
    count, seconds, levels = len(STEMS), [], []
    for index in range(200):
        first, both = alone.plan(index), joined.plan(index)
        assert torch.equal(first.numbers, both.numbers[:count])
        assert torch.equal(first.gains, both.gains[:count])
        levels += (20 * both.gains[count:].abs().log10()).tolist()
        second = both.numbers[count:]
        assert {STEMS[row] for row in range(count) if second[row] != SILENCE} <= set(shares)
        assert all(second[first.numbers == SILENCE] == SILENCE)
        if (
            len({alone.recorded_stems[t][0].name for t in first.numbers.tolist() if t != SILENCE})
            > 1
        ):
            seconds.append(second != SILENCE)
    heard = torch.stack(seconds).float().mean(dim=0)
    assert 0.3 < float(heard[0]) < 0.6
    assert 0.85 < float(heard[3]) <= 1.0  # but for those that are dropped
    assert (min(levels), max(levels)) == pytest.approx((-10, 2), abs=0.1)  # of the first, in dB


def test_a_second_recording_is_added_to_the_stem() -> None:
    shared = tiny(coherent_share=0.0, drop_share=0.0, seed=3, second_share={"drums": 1.0})
    plans = ClipPlanner(songs()[0], shared)
    plan, clip = plans.plan(0), ClipDataset(plans)[0]
    expected = torch.zeros(2, shared.clip_samples)
    for row in (1, 1 + len(STEMS)):
        recording, stem = plans.recorded_stems[int(plan.numbers[row])]
        start = int(plan.starts[row])
        part = torch.from_numpy(recording.stem(stem)[start : start + shared.clip_samples].T.copy())
        part = part.flip(0) if plan.swapped[row] else part
        expected += part * plan.gains[row] / 32768
    torch.testing.assert_close(clip[1], expected)


@pytest.mark.parametrize("second", [{}, {"other": 0.5, "drums": 1.0}])
def test_resident_clips_equal_those_read_from_the_cache(second: dict[str, float]) -> None:
    short = recording_from_arrays("short", {"bass": pcm(4, 2000)}, origin="pools", extra=True)
    plans = ClipPlanner([*songs()[0], short], tiny(drop_share=0.3, second_share=second))
    resident = ResidentClips(plans, torch.device("cpu"))
    batch = torch.utils.data.default_collate([PlanDataset(plans)[i] for i in range(30)])
    expected = torch.stack([ClipDataset(plans)[i] for i in range(30)])
    torch.testing.assert_close(resident.cut(batch), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("varispeed", [0.0, 0.1])
def test_a_resident_batch_may_be_silent(varispeed: float) -> None:
    """A stem of which there is no recording may be the one that remains of a clip."""
    model = dataclasses.replace(MODEL, stems=("vocals",), mask="sigmoid")
    config = tiny(model=model, stems=STEMS, drop_share=0.5, varispeed=varispeed)
    plans = ClipPlanner([recording_from_arrays("voice", {"vocals": pcm(0)})], config)
    silent = next(i for i in range(99) if (plans.plan(i).numbers == SILENCE).all())
    batch = torch.utils.data.default_collate([plans.plan(silent)])
    clips = ResidentClips(plans, torch.device("cpu")).cut(batch)
    assert torch.equal(clips, ClipDataset(plans)[silent][None])
    assert clips.dtype == torch.float32


def test_clips_avoid_silent_passages() -> None:
    mostly_silent = np.zeros((20 * 44_100, 2), np.int16)
    mostly_silent[: 5 * 44_100] = pcm(2, 5 * 44_100)
    stems = {"vocals": mostly_silent, **{s: pcm(3, 20 * 44_100) for s in STEMS[1:]}}
    one = ClipPlanner([recording_from_arrays("one", stems)], tiny(coherent_share=0.0))
    starts = [int(one.plan(i).starts[0]) for i in range(200)]
    assert sum(start < 5 * 44_100 for start in starts) > 140


def test_songs_too_short_for_coherent_clips_get_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tiny()
    short = [song(1, samples=config.clip_samples // 2), song(2, samples=config.clip_samples - 1)]
    ClipPlanner(short, tiny(coherent_share=0.0))
    ClipPlanner([short[0].without(["bass"]), short[1].without(["drums"])], config)
    ClipPlanner([song(3, samples=config.clip_samples), *short], config)
    assert not caplog.messages
    ClipPlanner(short, config)
    (message,) = caplog.messages
    seconds = f"{config.clip_samples / 44_100:.1f} s"
    longest = f"the longest song whose stems are all known has {seconds};"
    assert f"clips have {seconds}, and {longest}" in message


def test_data_without_a_target_or_without_sound_is_refused() -> None:
    silent = {stem: np.zeros((44_100, 2), np.int16) for stem in STEMS}
    with pytest.raises(TrainingError, match="no training data for vocals"):
        ClipPlanner([recording_from_arrays("silent", silent)], tiny())
    with pytest.raises(TrainingError, match="no training data for vocals"):
        ClipPlanner([recording_from_arrays("drums", {"drums": pcm(1)})], tiny())


def test_a_sound_at_the_very_end_of_a_recording_is_training_data() -> None:
    late = np.zeros((3 * LEVEL_BLOCK // 2, 2), np.int16)
    late[LEVEL_BLOCK:] = 1000
    planner = ClipPlanner([recording_from_arrays("late", dict.fromkeys(STEMS, late))], tiny())
    assert ClipDataset(planner)[0].any()


def test_stems_that_are_left_out_are_unknown() -> None:
    songs = [song(1), song(2), song(3)]
    kept = apply_leave_out(songs, ["song1=vocals", "song1=bass, other", "song2"], STEMS)
    assert [each.name for each in kept] == ["song1", "song3"]
    assert [stem for stem in STEMS if kept[0].knows([stem])] == ["drums"]
    assert np.array_equal(kept[0].stem("drums"), songs[0].stem("drums"))
    assert kept[1] is songs[2]
    planner = ClipPlanner(kept, tiny(coherent_share=0.5))
    drawn = [
        planner.recorded_stems[t]
        for i in range(40)
        for t in planner.plan(i).numbers.tolist()
        if t >= 0
    ]
    assert {stem for each, stem in drawn if each is kept[0]} == {"drums"}
    for wrong in ("song4", "song1=piano", "song1=vocals,piano"):
        with pytest.raises(TrainingError, match=f"--leave-out {wrong}: there is no such"):
            apply_leave_out(songs, [wrong], STEMS)


def test_leave_out_removes_stems_from_all_recordings_of_a_name() -> None:
    ours = recording_from_arrays("one", {"vocals": pcm(1), "drums": pcm(2)})
    theirs = recording_from_arrays("one", {"bass": pcm(3)})
    for order in ([ours, theirs], [theirs, ours]):
        kept = apply_leave_out(order, ["one=vocals,bass"], STEMS)
        assert [stem for each in kept for stem in STEMS if each.knows([stem])] == ["drums"]
    with pytest.raises(TrainingError, match="--leave-out one=other: there is no such"):
        apply_leave_out([ours, theirs], ["one=other"], STEMS)


def test_held_out_excerpts_are_fixed_audible_and_not_trained_on() -> None:
    second = 44_100
    long = [song(i, samples=30 * second, origin="songs") for i in range(3)]
    short, base = song(7, samples=5 * second, origin="songs"), song(8, samples=30 * second)
    train, valid = hold_out([*long, short, base], STEMS, 2, 10 * second, origins=["songs"])
    again = hold_out([*long, short, base], STEMS, 2, 10 * second, origins=["songs"])[1]
    assert [(v.name, v.start) for v in valid] == [(v.name, v.start) for v in again]
    assert len(valid) == 2
    assert all(v.samples == 10 * second and v.split == "valid" for v in valid)
    for held in valid:
        parts = [s for s in train if s.name == held.name]
        assert sum(part.samples for part in parts) == 20 * second
        assert held.stop is not None
        for part in parts:
            assert part.stop is not None
            assert part.stop <= held.start or part.start >= held.stop
    assert {"song7", "song8"} <= {s.name for s in train}


def test_songs_are_pickled_without_their_audio(tmp_path: Path) -> None:
    original = song(1)
    np.save(tmp_path / "pcm.npy", original.pcm)
    mapped = np.load(tmp_path / "pcm.npy", mmap_mode="r")
    state = original.__getstate__() | {"pcm": mapped, "path": tmp_path / "pcm.npy"}
    original.__setstate__(state)
    content = pickle.dumps(original.part(100, 2000))
    assert len(content) < 10_000
    copy = pickle.loads(content)
    assert np.array_equal(copy.stem("bass"), original.stem("bass")[100:2000])


# In a file of its own, as processes that are not forked read the main one.
INTERRUPTED_AT_THE_START = """
import multiprocessing, os, signal
from unetsep.train.data.loaders import ClipLoader

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    signal.signal(signal.SIGINT, lambda *_: print("heard", flush=True))
    batches = iter(ClipLoader(range(4), num_workers=1))
    os.killpg(0, signal.SIGINT)
    print([batch.item() for batch in batches])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="its terminals send Ctrl-C to all")
def test_ctrl_c_while_workers_import_torch_reaches_only_the_training_process(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train.py"
    script.write_text(INTERRUPTED_AT_THE_START, "utf-8")
    done = subprocess.run(
        [sys.executable, script], start_new_session=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout.decode()) == (0, "heard\n[0, 1, 2, 3]\n"), done.stderr
    assert done.stderr == b""


def test_a_loader_without_workers_starts_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(resource_tracker, "ensure_running", refuse)
    assert [int(batch) for batch in ClipLoader(range(3), num_workers=0)] == [0, 1, 2]
