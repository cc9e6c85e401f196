"""Compare imported models with real Spleeter on real music.

    python tests/parity/spleeter_parity.py --work FOLDER SONG.wav
    python tests/parity/spleeter_parity.py --work FOLDER --write-fixture

Makes an environment with Spleeter and its TensorFlow in FOLDER (Python 3.11 and 2.5 GB; an
environment that is there is used), saves checkpoints with random weights as Spleeter would,
lets Spleeter separate the first seconds of SONG (44.1 kHz stereo), imports the checkpoints
and separates the same samples in Spleeter's settings. Fails if a network's output differs by
more than 1e-4 of its peak, or a stem by more than -80 dB.

With ``--write-fixture`` it makes narrow networks instead and saves checkpoints and
Spleeter's outputs where ``tests/test_spleeter.py`` finds them.
"""

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.nn import functional

from unetsep import Separator
from unetsep.dsp.spectrogram import stft
from unetsep.network.build import for_inference
from unetsep.network.per_stem import PerStem
from unetsep.network.presets import INSTRUMENTS
from unetsep.spleeter.bundle_files import read_bundle
from unetsep.spleeter.convert import build

HERE = Path(__file__).parent
FIXTURE = HERE.parent / "fixtures" / "spleeter"
REFERENCE = HERE / "spleeter_reference.py"
ELU = {"conv_activation": "ELU", "deconv_activation": "ELU"}
NETWORK_LIMIT, STEM_LIMIT = 1e-4, -80.0
# The fixture: tiny networks on tiny segments, and every so many of their outputs.
NARROW, SIZE, STEP, SAMPLE_STEP = [2, 2, 3, 3, 4, 4], 64, 3, 99


def configuration(stems, folder, bins=1024, **changes):
    """Spleeter's configuration of that many stems, as its resources have it."""
    return {
        "model_dir": str(folder.resolve()),
        "mix_name": "mix",
        "instrument_list": INSTRUMENTS[stems],
        "sample_rate": 44100,
        "frame_length": 4096,
        "frame_step": 1024,
        "T": 512,
        "F": bins,
        "n_channels": 2,
        "separation_exponent": 2,
        "mask_extension": "zeros",
        "model": {
            "type": "unet.softmax_unet" if stems == 5 else "unet.unet",
            "params": {} if stems == 2 else dict(ELU),
        },
    } | changes


def environment(work):
    """Python of an environment with Spleeter."""
    python = work / "env" / "bin" / "python"
    if not python.exists():
        subprocess.run(["python3.11", "-m", "venv", work / "env"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "spleeter"], check=True)
    return python


def reference(python, *arguments):
    subprocess.run([python, REFERENCE, *map(str, arguments)], check=True)


def decibels(found, true):
    return 10 * np.log10(np.square(found - true).sum() / np.square(true).sum())


def compare(network, audio, out):
    """Largest error of a network's outputs over their peak, and of the stems in dB."""
    config, saved = network.config, np.load(out)
    blocks = len(saved[f"net/{config.stems[0]}"])
    total = blocks * config.segment_frames
    # Spleeter puts a whole window of zeros before the song.
    padded = np.pad(audio.T, ((0, 0), (config.n_fft, config.n_fft)))
    spectrum = stft(torch.from_numpy(padded), config.n_fft, config.hop_length)
    frames = -(-(len(audio) + config.n_fft) // config.hop_length)
    magnitude = spectrum[:, : config.bins, :frames].abs()
    magnitude = functional.pad(magnitude, (0, total - frames))
    separator = Separator(network, precision="fp32", overlap=0, mask_extension="zeros")
    fast = for_inference(network)
    outputs, masks = [], []
    with torch.inference_mode():
        for block in magnitude.split(config.segment_frames, dim=-1):
            outputs.append((fast(block[None])[0] * block).permute(0, 3, 2, 1).numpy())
            masks.append(separator.estimate(block).permute(0, 3, 2, 1).numpy())
    ratios = np.concatenate(masks, axis=1)[:, :frames]
    stems = separator.separate(audio.T, config.sample_rate)
    for index, name in enumerate(config.stems):
        net, mask = saved[f"net/{name}"], saved[f"mask/{name}"][:, : config.bins]
        found = np.stack([block[index] for block in outputs])
        error = np.abs(found - net).max() / np.abs(net).max()
        # A mask says nothing where the mixture is silent: weigh it by the mixture.
        weight = magnitude[..., :frames].permute(2, 1, 0).numpy()
        masked = decibels(ratios[index] * weight, mask * weight)
        stem = decibels(stems[name].T, saved[f"stem/{name}"])
        print(f"  {name:14} network {error:.1e} of peak, masks {masked:.1f} dB, stem {stem:.1f} dB")
        yield error <= NETWORK_LIMIT and stem <= STEM_LIMIT


def parity(python, work, song, seconds):
    """Whether all models match Spleeter on a song."""
    audio, rate = soundfile.read(song, dtype="float32", always_2d=True)
    if rate != 44100 or audio.shape[1] != 2:
        sys.exit(f"{song}: expected 44.1 kHz stereo")
    audio = audio[: int(seconds * rate)]
    np.save(work / "audio.npy", audio)
    good = []
    for stems in INSTRUMENTS:
        folder = work / "models" / f"{stems}stems"
        for bins in (1024, 1536):
            config = work / f"{stems}stems-{bins}.json"
            config.write_text(json.dumps(configuration(stems, folder, bins)))
            if not (folder / "model.index").exists():
                reference(python, "make", config, folder, stems)
            out = work / "out.npz"
            reference(python, "run", config, work / "audio.npy", out)
            print(f"{stems} stems, {bins} bins, {len(audio) / rate:.1f} s")
            good += compare(build(read_bundle(folder), bins), audio, out)
    return all(good)


def chirps(samples):
    """Stereo signal that is the same everywhere, ``(samples, 2)``."""
    time = np.arange(samples) / 44100
    left = np.sin(2 * np.pi * (110 + 300 * time) * time) * np.exp(-3 * (time % 0.5))
    right = np.sin(2 * np.pi * 220 * time) * np.sin(2 * np.pi * 1.7 * time)
    return np.stack([0.5 * left + 0.1 * right, 0.4 * right], axis=1).astype(np.float32)


def write_fixture(python, work):
    """Narrow checkpoints and what Spleeter makes of chirps with them."""
    np.save(work / "audio.npy", chirps(int(1.4 * SIZE * 1024)))
    for stems in INSTRUMENTS:
        folder = FIXTURE / f"{stems}stems"
        shutil.rmtree(folder, ignore_errors=True)
        values = configuration(stems, folder, SIZE, T=SIZE, narrow=True)
        values["model"]["params"]["conv_n_filters"] = NARROW
        config = work / "narrow.json"
        config.write_text(json.dumps(values))
        reference(python, "make", config, folder, 100 + stems)
        reference(python, "run", config, work / "audio.npy", work / "out.npz")
        saved = dict(np.load(work / "out.npz"))
        np.savez_compressed(
            folder / "expected.npz",
            **{n: a[:, ::STEP, ::STEP] for n, a in saved.items() if n.startswith("net/")},
            **{n: a[::SAMPLE_STEP] for n, a in saved.items() if n.startswith("stem/")},
        )
        (folder / ".probe").unlink()
        (folder / "checkpoint").write_text('model_checkpoint_path: "model"\n')
        network = build(read_bundle(folder), SIZE)
        narrow = PerStem(replace(network.config, segment_frames=SIZE))
        narrow.load_state_dict(network.state_dict())
        print(f"{stems} stems, narrow")
        list(compare(narrow.eval(), np.load(work / "audio.npy"), work / "out.npz"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", nargs="?", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=18.0)
    parser.add_argument("--write-fixture", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    python = environment(options.work)
    if options.write_fixture:
        write_fixture(python, options.work)
    elif options.song is None:
        parser.error("name a song")
    elif not parity(python, options.work, options.song, options.seconds):
        sys.exit("unetsep and Spleeter differ")


if __name__ == "__main__":
    main()
