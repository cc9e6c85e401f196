"""``recipes/midi_pools.py``: which notes go into which stem, and what becomes of the sound.

Nothing here needs fluidsynth: a sine stands in for it.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import midi_parts
import midi_pools
import numpy as np
import pytest
import soundfile
from midi_parts import Control, Note, Part, excerpt, for_kit, read, split, vary, write

from unetsep.config import STEMS
from unetsep.train.data.pools import Pools

PIANO, ROCK_GUITAR, BASS, PICKED_BASS, STRINGS, CHOIR = 0, 30, 33, 34, 48, 52


def line(channel: int, program: int, pitch: int, count: int = 40, every: float = 0.5) -> list[Note]:
    """Notes of equal pitch, one after the other."""
    return [Note(i * every, (i + 0.9) * every, channel, program, pitch, 80) for i in range(count)]


def part(*lines: list[Note], controls: tuple[Control, ...] = ()) -> Part:
    notes = sorted((note for notes in lines for note in notes), key=lambda note: note.start)
    return Part(tuple(notes), controls)


def programs(part: Part) -> set[int]:
    return {note.program for note in part.notes}


def test_a_song_is_split_by_channel_program_and_pitch() -> None:
    song = part(line(0, BASS, 36), line(1, PIANO, 60), line(9, 0, 38), line(2, STRINGS, 64))
    stems = split(song)
    assert set(stems) == {"bass", "drums", "other"}
    assert programs(stems["bass"]) == {BASS}
    assert {note.channel for note in stems["drums"].notes} == {9}
    assert programs(stems["other"]) == {PIANO, STRINGS}


@pytest.mark.parametrize(
    ("program", "pitch", "why"),
    [
        (PIANO, 36, "doubles the bass"),
        (BASS, 65, "plays a melody"),
        (CHOIR, 60, "is a voice"),
        (117, 60, "is a drum that is not on the drums' channel"),
    ],
)
def test_what_could_be_taken_for_another_stem_is_in_none(
    program: int, pitch: int, why: str
) -> None:
    assert split(part(line(0, program, pitch))) == {}, why


def test_a_low_rock_guitar_is_no_bass() -> None:
    assert set(split(part(line(0, ROCK_GUITAR, 41)))) == {"other"}


def test_of_two_basses_the_busier_one_is_chosen() -> None:
    stems = split(part(line(0, BASS, 36, count=10), line(1, PICKED_BASS, 36, count=20)))
    assert programs(stems["bass"]) == {PICKED_BASS}


def test_each_stem_keeps_the_controls_of_its_channels_and_bass_stays_in_the_middle() -> None:
    volume, pan, elsewhere = Control(0, 0, 7, 90), Control(0, 0, 10, 20), Control(0, 1, 10, 30)
    controls = (volume, pan, elsewhere)
    stems = split(part(line(0, BASS, 36), line(1, PIANO, 60), controls=controls))
    assert stems["bass"].controls == (volume,)
    assert stems["other"].controls == (elsewhere,)


def test_an_excerpt_starts_with_a_note_and_hears_of_earlier_controls() -> None:
    song = part(line(0, BASS, 36, count=200), controls=(Control(0, 0, 7, 90), Control(99, 0, 7, 1)))
    short = excerpt(song, 10, random.Random(3))
    assert short.notes[0].start == 0
    assert len(short.notes) == 20
    assert max(note.end for note in short.notes) <= 10
    assert short.controls[0] == Control(0, 0, 7, 90)


def test_a_song_shorter_than_an_excerpt_is_taken_whole() -> None:
    song = part(line(0, BASS, 36, count=4))
    assert excerpt(song, 45, random.Random(0)).notes == song.notes


def test_variations_of_a_bass_remain_a_bass() -> None:
    heard = set()
    for seed in range(50):
        varied = vary(part(line(0, BASS, 48)), "bass", random.Random(seed))
        heard |= programs(varied)
        assert all(33 <= note.pitch <= 39 for note in varied.notes)
        assert all(72 <= note.velocity <= 88 for note in varied.notes)
    assert heard == set(range(32, 40))


def test_variations_of_drums_change_the_kit_but_not_what_is_hit() -> None:
    varied = vary(part(line(9, 0, 36), line(9, 0, 38)), "drums", random.Random(1))
    assert len(programs(varied)) == 1
    assert programs(varied) <= set(midi_parts.KITS)
    assert {note.pitch for note in varied.notes} == {36, 38}


def test_variations_of_others_never_become_a_voice_or_timpani() -> None:
    song = part(line(0, STRINGS, 60), line(1, 46, 60))
    heard = set().union(
        *(programs(vary(song, "other", random.Random(seed))) for seed in range(200))
    )
    assert heard <= {*range(40, 56)} - midi_parts.UNCLEAR
    assert len(heard) > 8


def test_kits_in_bank_zero_are_played_on_another_channel() -> None:
    moved = for_kit(part(line(9, 16, 50), line(9, 16, 42)))
    assert {(note.channel, note.program) for note in moved.notes} == {(0, 0)}
    assert {note.pitch for note in moved.notes} == {45, 42}


def test_parts_survive_a_midi_file(tmp_path: Path) -> None:
    bend = Control(1.0, 0, midi_parts.PITCH_BEND, -500)
    song = part(line(0, BASS, 36), line(9, 0, 38), controls=(Control(0.5, 0, 7, 90), bend))
    write(song, tmp_path / "song.mid", random.Random(0))
    back = read(tmp_path / "song.mid")
    assert back.controls == song.controls
    for note, original in zip(back.notes, song.notes, strict=True):
        assert replace(note, start=0, end=0) == replace(original, start=0, end=0)
        assert note.start == pytest.approx(original.start, abs=1e-3)
        assert note.end == pytest.approx(original.end, abs=1e-3)


def save(path: Path, *messages: object) -> Path:
    import mido

    mido.MidiFile(tracks=[mido.MidiTrack(messages)]).save(path)
    return path


def hit(channel: int, pitch: int) -> list[object]:
    import mido

    on = mido.Message("note_on", channel=channel, note=pitch, velocity=80)
    return [on, mido.Message("note_off", channel=channel, note=pitch, time=480)]


def test_channels_that_roland_gs_makes_drums_are_drums(tmp_path: Path) -> None:
    import mido

    rhythm = mido.Message("sysex", data=(0x41, 0x10, 0x42, 0x12, 0x40, 0x13, 0x15, 2, 0x16))
    song = read(save(tmp_path / "gs.mid", rhythm, *hit(2, 58), *hit(3, 60)))
    assert [(note.channel, note.pitch) for note in song.notes] == [(9, 58), (3, 60)]


def test_a_message_that_ends_before_it_says_whether_a_channel_is_drums_says_nothing(
    tmp_path: Path,
) -> None:
    import mido

    short = mido.Message("sysex", data=(0x41, 0x10, 0x42, 0x12, 0x40, 0x13, 0x15))
    song = read(save(tmp_path / "short.mid", short, *hit(2, 58), *hit(3, 60)))
    assert [note.channel for note in song.notes] == [2, 3]


def test_pads_of_a_drummer_are_translated_only_in_takes_of_drums_alone(tmp_path: Path) -> None:
    alone = read(save(tmp_path / "take.mid", *hit(9, 26), *hit(9, 38)))
    assert [note.pitch for note in alone.notes] == [46, 38]
    song = read(save(tmp_path / "song.mid", *hit(9, 26), *hit(0, 38)))
    assert [note.pitch for note in song.notes] == [26, 38]


def test_what_is_no_midi_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.mid").write_bytes(b"RIFF and so on")
    with pytest.raises(ValueError, match=r"cannot read .*odd\.mid"):
        read(tmp_path / "odd.mid")


def tone(seconds: float, level: float = 0.3) -> np.ndarray:
    times = np.arange(int(seconds * 20) * midi_pools.FRAME) / midi_pools.RATE
    return np.repeat(level * np.sin(2 * np.pi * 80 * times)[:, None], 2, axis=1)


def test_pauses_are_shortened_and_levels_are_equal() -> None:
    trimmed = midi_pools.trim(np.concatenate([tone(3, 0.01), tone(8, 0), tone(3, 0.01)]))
    assert len(trimmed) == pytest.approx(7 * midi_pools.RATE, abs=2 * midi_pools.FRAME)
    middle = trimmed[midi_pools.RATE : 2 * midi_pools.RATE]
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.1, rel=0.01)


def test_peaks_do_not_clip_and_silence_is_empty() -> None:
    clicks = tone(3, 0)
    clicks[:: midi_pools.FRAME] = 1
    assert np.abs(midi_pools.trim(clicks)).max() == pytest.approx(0.9)
    assert len(midi_pools.trim(tone(3, 0))) == 0


def test_overdrive_is_for_the_bass_alone() -> None:
    third = {"bass": [], "other": []}
    for stem, found in third.items():
        for seed in range(12):
            audio = midi_pools.colour(tone(2, 0.5), stem, random.Random(seed))
            spectrum = np.abs(np.fft.rfft(audio[:, 0]))
            found.append(spectrum[480] / spectrum[160])  # 240 and 80 Hz
    assert max(third["bass"]) > 0.05
    assert max(third["other"]) < 1e-3


@pytest.fixture
def pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command on two songs, a drummer's take and a fill, with a sine for a synthesizer."""
    songs = part(*(line(i, p, n, count=28) for i, p, n in ((0, BASS, 36), (1, PIANO, 60))))
    take, fill = part(line(9, 0, 36, count=28)), part(line(9, 0, 38, count=6))
    for name, music in {"a/one": songs, "a/two": songs, "b/take": take, "b/fill": fill}.items():
        path = tmp_path / "midi" / f"{name}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(music, path, random.Random(0))
    (tmp_path / "midi" / "a" / "broken.mid").write_bytes(b"MThd")
    monkeypatch.setattr(midi_pools.shutil, "which", lambda name: name)
    monkeypatch.setattr(midi_pools, "render", lambda midi, *_: tone(read(midi).notes[-1].end))
    (tmp_path / "a.sf2").touch()

    def run(name: str, seed: int = 0, midi: str = "midi", more: tuple[str, ...] = ()) -> Path:
        words = [str(tmp_path / midi), str(tmp_path / name)]
        words += ["--minutes", "0.5", "0.2", "0.2", "--seed", str(seed)]
        words += more or ["--soundfont", str(tmp_path / "a.sf2")]
        monkeypatch.setattr(sys, "argv", ["midi_pools.py", *words])
        midi_pools.main()
        return tmp_path / name

    return run


def test_the_command_writes_pools_that_training_finds(pools, capsys) -> None:
    folder = pools("pools")
    assert "left out: mido cannot read" in capsys.readouterr().out
    found = Pools().find(folder, STEMS)
    minutes = dict.fromkeys(("bass", "drums", "other"), 0.0)
    for source in found:
        (stem, path), *_ = source.files.items()
        minutes[stem] += soundfile.info(path).duration / 60
    assert all(
        minutes[s] >= least for s, least in {"bass": 0.5, "drums": 0.2, "other": 0.2}.items()
    )
    assert not any("fill" in source.name for source in found)
    assert any(source.name.endswith("one-1") for source in found), "a second round"
    rows = (folder / "sources.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {f"{source.name}.flac" for source in found}


def test_the_same_seed_makes_the_same_pools(pools) -> None:
    def sounds(folder: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in folder.rglob("*.flac")}

    first = sounds(pools("first"))
    assert first == sounds(pools("second"))
    assert first != sounds(pools("third", seed=1))


@pytest.mark.parametrize(
    ("midi", "more", "told"),
    [
        ("nowhere", (), "no MIDI files (.mid, .midi) in"),
        ("midi", ("--soundfont", "nowhere.sf2"), "there is no soundfont nowhere.sf2"),
        ("midi", ("--sampler", "nowhere"), "there are no sample sets (.json) in nowhere"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_rendered(
    pools, capsys, tmp_path: Path, midi: str, more: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit):
        pools("pools", midi=midi, more=more)
    assert told in capsys.readouterr().err
    assert not (tmp_path / "pools").exists()


def test_a_stem_that_nothing_became_is_told_at_the_end(pools, tmp_path: Path) -> None:
    for path in (tmp_path / "midi" / "b").iterdir():
        path.unlink()
    with pytest.raises(SystemExit, match=r"nothing of .*midi became drums of 12 s or more"):
        pools("pools")


def test_names_of_midi_files_may_end_in_any_usual_way(pools, tmp_path: Path) -> None:
    (tmp_path / "midi" / "a" / "one.mid").rename(tmp_path / "midi" / "a" / "ONE.MID")
    (tmp_path / "midi" / "a" / "two.mid").rename(tmp_path / "midi" / "a" / "two.midi")
    rows = (pools("pools") / "sources.csv").read_text()
    assert {"ONE.MID", "two.midi"} <= {Path(row.split(",")[1]).name for row in rows.splitlines()}


def test_sources_of_an_earlier_run_stay_while_their_recordings_do(pools, tmp_path: Path) -> None:
    folder = pools("pools")
    rows = (folder / "sources.csv").read_text().splitlines()
    (tmp_path / "midi" / "a").rename(tmp_path / "midi" / "c")
    gone, *_ = (folder / "drums").iterdir()
    gone.unlink()
    again = (pools("pools", seed=1) / "sources.csv").read_text().splitlines()
    assert {row for row in rows if row.startswith(("bass", "other"))} < set(again)
    names = [row.split(",")[0] for row in again[1:]]
    assert len(names) == len(set(names))
    assert all((folder / name).exists() for name in names)


def test_without_fluidsynth_the_command_says_what_to_install(pools, monkeypatch) -> None:
    monkeypatch.setattr(midi_pools.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install fluidsynth"):
        pools("pools")


def test_files_whose_recordings_would_have_one_name_are_refused(pools, tmp_path, capsys) -> None:
    again = tmp_path / "midi" / "a-one.mid"
    again.write_bytes((tmp_path / "midi" / "a" / "one.mid").read_bytes())
    with pytest.raises(SystemExit):
        pools("pools")
    assert "would have one name: rename one of them" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.flac"))
