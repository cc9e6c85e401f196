"""Feed damaged audio files to the reader and the command until the time is up.

    python benchmarks/stress/fuzz_audio.py --minutes 30 --model tiny.safetensors

Among the inputs are files that were joined, whose parts are in another order, and that have
several sound tracks. Every input must end in samples or in one of unetsep's own errors: no
other exception, no crash of a decoder, nothing that lasts 20 seconds or takes 2 GiB. A command
leaves four whole stems or none, and no temporary file. Inputs run in a child process; those that
break a rule are kept in the folder given by --keep.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import struct
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
from click.testing import CliRunner, Result

from unetsep.audio.decoder import FFMPEG_SUFFIXES
from unetsep.audio.ffmpeg_program import find_ffmpeg

LIMIT_SECONDS = 20
LIMIT_BYTES = 2 << 30
FORMATS = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "IMA_ADPCM"),
    ("wav", "RF64", "PCM_16"),
    ("w64", "W64", "PCM_16"),
    ("aiff", "AIFF", "PCM_24"),
    ("au", "AU", "PCM_16"),
    ("caf", "CAF", "ALAC_16"),
    ("voc", "VOC", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
]
# By ffmpeg: suffix and codec of files with two sound tracks.
MULTI_TRACK = [
    ("mka", "flac"),
    ("mp4", "aac"),
    ("m4a", "alac"),
    ("ogg", "libvorbis"),
    ("ts", "ac3"),
]
# Likewise: of files whose speakers are named, or whose headers libsndfile misreads.
SURROUND = [("caf", "pcm_s16be"), ("aiff", "pcm_s16be"), ("w64", "pcm_f32le"), ("wav", "pcm_s16le")]
# What may come of an input.
FINE = ("read", "refused", "command")
# What the stems of the command are written as.
OUTPUTS = ["wav", "flac", "ogg", "mp3", "opus"]
INTERESTING = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
]


def seeds() -> list[tuple[str, bytes]]:
    """Small valid files of every format."""
    rng = np.random.default_rng(0)
    files = []
    for suffix, container, subtype in FORMATS:
        for channels in (1, 2):
            audio = (0.2 * rng.standard_normal((6000, channels))).astype(np.float32)
            file = io.BytesIO()
            soundfile.write(file, audio, 48_000, subtype=subtype, format=container)
            files.append((suffix, file.getvalue()))
    mp3 = files[-1][1]
    files.append(("mp3", b"ID3\x03\0\0\0\0\x10\0APIC\0\0\x08\0" + bytes(2042) + mp3))
    files.append(("mp3", mp3.replace(b"Info", b"None") * 3))
    return files + join_files(files) + multi_track() + surround()


def join_files(files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Each file twice, and the mono and the stereo one of a format in either order."""
    groups: dict[str, list[bytes]] = {}
    for suffix, content in files:
        groups.setdefault(suffix, []).append(content)
    return [
        (suffix, first + second)
        for suffix, contents in groups.items()
        for first, second in itertools.product(contents[:2], repeat=2)
    ]


def multi_track() -> list[tuple[str, bytes]]:
    """Containers with a stereo and a 5.1 track, the second one the default; needs ffmpeg."""
    ffmpeg, files = find_ffmpeg(), []
    if ffmpeg is None:
        return files
    tracks = ["-f", "lavfi", "-i", "anoisesrc=d=0.2:r=48000:a=0.1"]
    maps = ["-map", "0", "-map", "0", "-ac:a:0", "2", "-ac:a:1", "6", "-disposition:a:1", "default"]
    for suffix, codec in MULTI_TRACK:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"a.{suffix}")
            command = [ffmpeg, "-v", "error", *tracks, *maps, "-c:a", codec, str(path)]
            subprocess.run(command, check=True)
            files.append((suffix, path.read_bytes()))
    return files


def surround() -> list[tuple[str, bytes]]:
    """Files of 7.1; needs ffmpeg."""
    ffmpeg, files = find_ffmpeg(), []
    for suffix, codec in SURROUND if ffmpeg else ():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"a.{suffix}")
            source = "anoisesrc=d=0.1:r=48000:a=0.1,aformat=channel_layouts=7.1"
            command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-c:a", codec]
            subprocess.run([*command, str(path)], check=True)
            files.append((suffix, path.read_bytes()))
    return files


def mutate(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """A few changes of the kinds that damage, carelessness and malice make."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        near = min(len(data), rng.choice((16, 64, 256, len(data))))
        at = rng.randrange(max(near, 1))
        kind = rng.randrange(9)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(INTERESTING))
        elif kind == 2:
            data[at : at + 2] = struct.pack(rng.choice("<>") + "H", rng.choice(INTERESTING) & 65535)
        elif kind == 3:
            del data[rng.randrange(len(data) + 1) :]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 400)]
        elif kind == 5:
            data[at:at] = rng.randbytes(rng.randrange(1, 400))
        elif kind == 6:
            data[at:at] = data[at : at + rng.randrange(1, 2000)]
        elif kind == 7:  # the parts in another order
            cut = sorted(rng.randrange(len(data) + 1) for _ in range(3))
            data = data[: cut[0]] + data[cut[1] : cut[2]] + data[cut[0] : cut[1]] + data[cut[2] :]
        else:
            begin = rng.randrange(len(other))
            data[at : at + 200] = other[begin : begin + 200]
    return bytes(data)


def work(number: int, model: str, connection: multiprocessing.connection.Connection) -> None:
    """Try inputs for ever; report each before and after."""
    import torch

    import unetsep.audio.reader
    from unetsep.audio.reader import AudioReader
    from unetsep.cli import main
    from unetsep.errors import UnetsepError

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    rng, start = random.Random(number), seeds()
    folder = Path(tempfile.mkdtemp())
    while True:
        suffix, content = rng.choice(start)
        data = mutate(rng, content, rng.choice(start)[1])
        path = folder / f"a.{suffix}"
        path.write_bytes(data)
        chance = rng.random()
        foreign = f".{suffix}" in FFMPEG_SUFFIXES or chance < 0.02
        unetsep.audio.reader.find_ffmpeg = find_ffmpeg if foreign else lambda: None
        connection.send(("begin", suffix, data))
        outcome = "read"
        try:
            if chance > 0.95:
                command = ["separate", "-q", "-m", model, "-d", "cpu", "-f", rng.choice(OUTPUTS)]
                command += ["-o", str(folder / "o"), "--duration", "5", str(path)]
                result = CliRunner().invoke(main, command)
                outcome = judge(result, folder / "o")
                shutil.rmtree(folder / "o", ignore_errors=True)
            else:
                place = rng.choice(({}, {"start": 0.05}, {"start": 0.12, "duration": 0.01}))
                track = rng.choice((None, None, 1, 2))
                with AudioReader(path, track=track, **place) as reader:
                    total = sum(block.size for block in reader.blocks())
                    outcome = "read" if total < 2e8 else f"{total} samples"
        except UnetsepError:
            outcome = "refused"
        except BaseException as error:
            outcome = repr(error)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        connection.send(("end", outcome if peak < LIMIT_BYTES else f"{peak} bytes", b""))


def judge(result: Result, folder: Path) -> str:
    """Which rule a command broke, if any, by its output and files."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return repr(result.exception)
    if "unexpected" in result.output or "Traceback" in result.output:
        return result.output
    files = [path for path in folder.rglob("*") if path.is_file()]
    stems = [path for path in files if not path.name.startswith(".")]
    temporary = [path.name for path in files if path.name.endswith((".part", ".spool", ".lock"))]
    if temporary or len(stems) != (0 if result.exit_code else 4):
        return f"exit code {result.exit_code} with {sorted(path.name for path in files)}"
    lengths = {soundfile.info(path).frames for path in stems}
    return "command" if len(lengths) < 2 else f"stems of {lengths} samples"


def main() -> None:
    """Run until the time is up, then print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", required=True)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.keep.mkdir(exist_ok=True)
    end, number = time.monotonic() + 60 * options.minutes, options.seed
    counts: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    while time.monotonic() < end:
        parent_end, child_end = context.Pipe()
        child = context.Process(target=work, args=(number, options.model, child_end), daemon=True)
        child.start()
        child_end.close()
        number, current, outcome = number + 1, None, "exited"
        start = time.monotonic()
        while time.monotonic() < end and time.monotonic() < start + 300:
            try:
                if not parent_end.poll(LIMIT_SECONDS + (40 if current is None else 0)):
                    outcome = "hang"
                    break
                kind, text, data = parent_end.recv()
            except EOFError:
                child.join()
                outcome = f"exit code {child.exitcode}"
                break
            if kind == "begin":
                current, outcome = (text, data), "exited"
                continue
            counts[text if text in FINE else "broken"] += 1
            if text not in FINE:
                keep(options.keep, current, text)
                outcome = "done"  # a fresh child follows: the peak of this one's memory stays
                break
        else:
            outcome = "done"
        if outcome != "done":
            counts[outcome] += 1
            keep(options.keep, current, outcome)
        child.kill()
        child.join()
        print(f"{(end - time.monotonic()) / 60:.1f} min left: {dict(counts)}", flush=True)


def keep(folder: Path, current: tuple[str, bytes] | None, outcome: str) -> None:
    """Save an input that broke a rule."""
    if current is None:
        return
    suffix, data = current
    name = hashlib.sha256(data).hexdigest()[:12]
    (folder / f"{name}.{suffix}").write_bytes(data)
    with (folder / "outcomes.txt").open("a") as file:
        file.write(f"{name}.{suffix} {outcome}{os.linesep}")
    print(name, suffix, outcome, flush=True)


if __name__ == "__main__":
    main()
