"""Time and memory of the same weights in Spleeter and in unetsep, side by side.

    python benchmarks/spleeter.py --env ENV --model FOLDER SONG.wav [--seconds 30 120]

``ENV`` is an environment with Spleeter (``pip install spleeter`` on Python 3.11), ``FOLDER``
a checkpoint of it with four stems. Both commands run from start to end, imports, decoding
and writing included, in turn, on excerpts of the song (repeated if it is short), with one
thread each unless asked otherwise: then CPU seconds tell the work, also where other programs
are running.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

CONFIG = {
    "mix_name": "mix",
    "instrument_list": ["vocals", "drums", "bass", "other"],
    "sample_rate": 44100,
    "frame_length": 4096,
    "frame_step": 1024,
    "T": 512,
    "F": 1024,
    "n_channels": 2,
    "separation_exponent": 2,
    "mask_extension": "zeros",
    "model": {
        "type": "unet.unet",
        "params": {"conv_activation": "ELU", "deconv_activation": "ELU"},
    },
}


def measure(command, environment):
    """Wall clock and CPU seconds, and peak memory in MB, of a command."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            sys.exit(f"{command} failed: {log.read().decode()}")
    elapsed = time.perf_counter() - begun
    return elapsed, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main():
    """Measure every command on every excerpt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", type=Path)
    parser.add_argument("--env", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=int, nargs="+", default=[30, 120])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    audio, rate = soundfile.read(options.song, dtype="float32", always_2d=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        config = work / "config.json"
        config.write_text(json.dumps(CONFIG | {"model_dir": str(options.model.resolve())}))
        environment = {"UNETSEP_HOME": folder, "TF_CPP_MIN_LOG_LEVEL": "3"}
        threads = str(options.threads)
        environment |= {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        ours = [sys.executable, "-m", "unetsep"]
        measure([*ours, "models", "import-spleeter", str(options.model)], environment)
        theirs = [str(options.env / "bin" / "python"), "-m", "spleeter", "separate"]
        print("seconds  program            wall s    CPU s  peak MB", flush=True)
        for seconds in options.seconds:
            song = work / f"{seconds}.wav"
            copies = -(-seconds * rate // len(audio))
            soundfile.write(song, np.tile(audio, (copies, 1))[: seconds * rate], rate)
            separate = [*ours, "separate", str(song), "-m", "spleeter-4stems", "--overwrite"]
            separate += ["--threads", threads]
            as_spleeter = ["--overlap", "0", "--mask-extension", "zeros", "--precision", "fp32"]
            commands = {
                "Spleeter": [*theirs, "-p", str(config), "-o", f"{folder}/s", str(song)],
                "unetsep as it is": [*separate, "-o", f"{folder}/u"],
                "unetsep same work": [*separate, "-o", f"{folder}/u", *as_spleeter],
            }
            for name, command in commands.items():
                elapsed, used, memory = measure(command, environment)
                row = f"{seconds:7}  {name:17} {elapsed:7.1f}  {used:7.1f}  {memory:7.0f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
