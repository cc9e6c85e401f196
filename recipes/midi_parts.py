"""Parts of MIDI files: what the bass, the drums and the other instruments of a song play.

Only `read` and `write` know MIDI files (they need mido); everything else works on notes.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

DRUM_CHANNEL = 9
BASSES = range(32, 40)
# Basses that climb above D3 play a melody, and other parts below A2 compete with the bass. Only
# overdriven guitars (29, 30) go as low as their open E string in rock.
HIGHEST_BASS, LOWEST_OTHER, LOWEST_ROCK_GUITAR = 50, 45, 40
# Single low notes of others are left out, too: a left hand or a pad that doubles the bass.
LOWEST_NOTE = 38
# Neither bass, drums nor unmistakably "other": timpani, choirs and voices, percussion, noises.
UNCLEAR = {47, 52, 53, 54, 85, 91, *range(112, 128)}
# Presets of bank 128; usual kits are more likely than machines, jazz and brushes.
KITS = (0, 0, 8, 8, 16, 16, 24, 25, 32, 40)
# Pads of Roland's kits that General MIDI does not know, in takes of drums alone (Groove MIDI).
ROLAND = {22: 42, 26: 46, 58: 43}
# avldrums' kits have two toms, and hi-hat and choked cymbals at the pitches of the others.
KIT_PITCHES = {35: 36, 43: 41, 47: 45, 48: 45, 50: 45, 52: 57}
# Modulation, data entry for bend ranges, volume, pan, expression, pedal, parameter numbers.
CONTROLS = {1, 6, 7, 10, 11, 38, 64, 100, 101}
PITCH_BEND, PAN, REVERB_SEND, CHORUS_SEND = -1, 10, 91, 93


@dataclass(frozen=True)
class Note:
    """A note; times in seconds, pitch and velocity as in MIDI."""

    start: float
    end: float
    channel: int
    program: int
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Control:
    """A controller's new value at a time in seconds; number -1 is the pitch bend."""

    time: float
    channel: int
    number: int
    value: int


@dataclass(frozen=True)
class Part:
    """What one stem plays: notes, and the controls of their channels."""

    notes: tuple[Note, ...]
    controls: tuple[Control, ...]


def read(path: Path) -> Part:
    """Everything a MIDI file plays; all drums are moved to channel 9.

    Raises
    ------
    ValueError
        If mido cannot read the file.
    """
    import mido

    try:
        messages = list(mido.MidiFile(path, clip=True))
    except (OSError, EOFError, LookupError, TypeError, ValueError, mido.KeySignatureError) as error:
        raise ValueError(f"mido cannot read {path}: {error!r}") from error
    programs, drums = [0] * 16, {DRUM_CHANNEL}
    sounding: dict[tuple[int, int], list[Note]] = defaultdict(list)
    notes, controls, now = [], [], 0.0
    for message in messages:
        now += message.time
        kind = message.type
        if kind == "program_change":
            programs[message.channel] = message.program
        elif kind in ("note_on", "note_off"):
            channel = DRUM_CHANNEL if message.channel in drums else message.channel
            program = programs[message.channel]
            key = (message.channel, message.note)
            if kind == "note_on" and message.velocity:
                note = Note(now, now, channel, program, message.note, message.velocity)
                sounding[key].append(note)
            elif sounding[key]:
                notes.append(replace(sounding[key].pop(0), end=now))
        elif kind == "control_change" and message.control in CONTROLS:
            controls.append(Control(now, message.channel, message.control, message.value))
        elif kind == "pitchwheel":
            controls.append(Control(now, message.channel, PITCH_BEND, message.pitch))
        elif (
            kind == "sysex"
            and len(message.data) > 7
            and message.data[::2][:4] == (0x41, 0x42, 0x40, 0x15)
        ):
            # Roland GS, "use for rhythm part"; its part 0 is channel 9.
            part = message.data[5] & 15
            channel = DRUM_CHANNEL if part == 0 else part - 1 if part < 10 else part
            (drums.add if message.data[7] else drums.discard)(channel)
    if all(note.channel == DRUM_CHANNEL for note in notes):
        notes = [replace(note, pitch=ROLAND.get(note.pitch, note.pitch)) for note in notes]
    return Part(tuple(sorted(notes, key=lambda note: note.start)), tuple(controls))


def split(song: Part) -> dict[str, Part]:
    """The bass, drums and other instruments of a song, as far as there are any.

    One bass is chosen, that with the most notes. Instruments that could be taken for those of
    another stem are left out.
    """
    voices = defaultdict(list)
    for note in song.notes:
        program = 0 if note.channel == DRUM_CHANNEL else note.program
        voices[note.channel, program].append(note)
    basses, others = [], []
    for (channel, program), notes in voices.items():
        pitch = statistics.median(note.pitch for note in notes)
        lowest = LOWEST_ROCK_GUITAR if program in (29, 30) else LOWEST_OTHER
        if channel == DRUM_CHANNEL or program in UNCLEAR:
            continue
        if program in BASSES:
            if pitch <= HIGHEST_BASS:
                basses.append(notes)
        elif pitch >= lowest:
            others += [note for note in notes if note.pitch >= LOWEST_NOTE]
    by_stem = {
        "bass": max(basses, key=len, default=[]),
        "drums": voices.get((DRUM_CHANNEL, 0), []),
        "other": sorted(others, key=lambda note: note.start),
    }
    return {stem: _part(notes, song.controls, stem) for stem, notes in by_stem.items() if notes}


def _part(notes: list[Note], controls: tuple[Control, ...], stem: str) -> Part:
    """Notes with their channels' controls; bass and drums stay in the middle."""
    channels = {note.channel for note in notes}
    selection = [c for c in controls if c.channel in channels]
    if stem != "other":
        selection = [c for c in selection if c.number != PAN]
    return Part(tuple(notes), tuple(selection))


def busiest(part: Part, seconds: float, rng: random.Random) -> float:
    """Where an excerpt begins: at the busiest of three notes, in seconds."""
    latest = max(part.notes[0].start, part.notes[-1].end - seconds)
    starts = [note.start for note in part.notes if note.start <= latest]
    return max(
        rng.choices(starts, k=3),
        key=lambda at: (sum(at <= note.start < at + seconds for note in part.notes), at),
    )


def cut(part: Part, start: float, seconds: float) -> Part:
    """What begins within ``seconds`` from ``start``; earlier controls are set at its start."""
    notes = [
        replace(note, start=note.start - start, end=min(note.end - start, seconds))
        for note in part.notes
        if start <= note.start < start + seconds
    ]
    controls = [
        replace(control, time=max(0.0, control.time - start))
        for control in part.controls
        if control.time < start + seconds
    ]
    return Part(tuple(notes), tuple(controls))


def excerpt(part: Part, seconds: float, rng: random.Random) -> Part:
    """The busiest of three places in a part."""
    return cut(part, busiest(part, seconds, rng), seconds)


@dataclass(frozen=True)
class Performance:
    """What the parts of a song share: semitones up and the factor of all times."""

    key: int
    tempo: float

    @classmethod
    def draw(cls, rng: random.Random) -> Performance:
        """Within three semitones and a tenth of the tempo."""
        return cls(rng.randint(-3, 3), rng.uniform(0.9, 1.1))


def vary(part: Part, stem: str, rng: random.Random, shared: Performance | None = None) -> Part:
    """Another performance: instruments, tempo, key and velocities differ a little.

    ``shared`` is that of the song's other parts; with none the part is played by itself.
    """
    performance = shared or Performance.draw(rng)
    pitch = statistics.median(note.pitch for note in part.notes)
    octave = 12 if pitch < 29 else -12 if pitch > 46 else 0
    shift = {"bass": octave + performance.key, "drums": 0, "other": performance.key}[stem]
    tempo = performance.tempo
    voices = sorted({(note.channel, note.program) for note in part.notes})
    if stem == "other" and rng.random() < 0.5:
        voices = rng.sample(voices, rng.randint(1, len(voices)))
    kit = rng.choice(KITS)
    programs = {voice: kit if stem == "drums" else _instrument(voice[1], rng) for voice in voices}
    notes = [
        replace(
            note,
            start=note.start * tempo,
            end=note.end * tempo,
            program=programs[note.channel, note.program],
            pitch=min(127, max(0, note.pitch + shift)),
            velocity=min(127, max(1, note.velocity + rng.randint(-8, 8))),
        )
        for note in part.notes
        if (note.channel, note.program) in programs
    ]
    controls = [replace(control, time=control.time * tempo) for control in part.controls]
    return Part(tuple(notes), tuple(controls))


def _instrument(program: int, rng: random.Random) -> int:
    """Any bass for a bass; for others often the same, else one of its family of eight."""
    if program not in BASSES and rng.random() < 0.5:
        return program
    family = range(program // 8 * 8, program // 8 * 8 + 8)
    return rng.choice([other for other in family if other not in UNCLEAR])


def write(part: Part, path: Path, rng: random.Random) -> None:
    """Write a part as a MIDI file, with random reverb and chorus sends on each channel."""
    import mido

    def ticks(seconds: float) -> int:
        return round(seconds * 960)  # 480 for each beat, 120 beats a minute: mido's defaults

    events = []
    for channel in sorted({note.channel for note in part.notes}):
        for number, most in ((REVERB_SEND, 70), (CHORUS_SEND, 50)):
            send = {"channel": channel, "control": number, "value": rng.randint(0, most)}
            events.append((0, 0, mido.Message("control_change", **send)))
    for control in part.controls:
        if control.number == PITCH_BEND:
            message = mido.Message("pitchwheel", channel=control.channel, pitch=control.value)
        else:
            values = {"control": control.number, "value": control.value}
            message = mido.Message("control_change", channel=control.channel, **values)
        events.append((ticks(control.time), 1, message))
    playing: dict[int, int] = {}
    for note in part.notes:
        begin, end = ticks(note.start), max(ticks(note.end), ticks(note.start) + 1)
        if playing.get(note.channel) != note.program:
            change = {"channel": note.channel, "program": note.program}
            events.append((begin, 2, mido.Message("program_change", **change)))
            playing[note.channel] = note.program
        key = {"channel": note.channel, "note": note.pitch}
        events.append((begin, 3, mido.Message("note_on", velocity=note.velocity, **key)))
        # Notes end before others begin: a repeated pitch must not be cut at once.
        events.append((end, 0, mido.Message("note_off", **key)))
    track, now = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    mido.MidiFile(tracks=[track]).save(path)


def for_kit(part: Part) -> Part:
    """Drums for a soundfont whose only preset is a kit in bank 0."""
    notes = [
        replace(note, channel=0, program=0, pitch=KIT_PITCHES.get(note.pitch, note.pitch))
        for note in part.notes
    ]
    return Part(tuple(notes), ())
