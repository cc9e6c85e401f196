"""Separate a song with numpy, soundfile and onnxruntime alone.

unetsep export-onnx fast -o fast.onnx
python examples/separate_onnx.py fast.onnx song.wav
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
config = json.loads(session.get_modelmeta().custom_metadata_map["config"])
size, hop, bins = config["n_fft"], config["hop_length"], config["bins"]
segment, unit = config["segment_frames"], 2 ** len(config["filters"])
audio, rate = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
if (rate, audio.shape[1]) != (config["sample_rate"], config["channels"]):
    sys.exit(f"expected {config['channels']} channels at {config['sample_rate']} Hz")

# STFT: every sample lies under four windows, and there are whole units of frames.
window = np.hanning(size + 1)[:-1].astype(np.float32)
frames = -(-(len(audio) + size - hop) // hop)
frames = -(-frames // unit) * unit
segment = min(segment, frames)
overlap = segment // 4
padded = np.pad(audio.T, ((0, 0), (size - hop, frames * hop + size - len(audio))))
pieces = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop][:, :frames]
spectrum = np.fft.rfft(pieces * window).astype(np.complex64).transpose(0, 2, 1)

# Masks of overlapping segments, cross-faded.
weight = np.zeros(frames, np.float32)
masks = np.zeros((len(config["stems"]), *spectrum.shape[:1], bins, frames), np.float32)
starts = sorted({*range(0, frames - segment, segment - overlap), frames - segment})
fade = np.minimum(1, (np.arange(segment) + 0.5) / overlap).astype(np.float32)
fade = np.minimum(fade, fade[::-1])
for start in starts:
    at = slice(start, start + segment)
    found = session.run(None, {"magnitude": np.abs(spectrum[None, :, :bins, at])})[0][0]
    masks[..., at] += found * fade
    weight[at] += fade
masks /= weight

# Above the network's band the mean of its top bins goes on; then the inverse STFT.
above = masks[:, :, -100:].mean(axis=2, keepdims=True)
masks = np.concatenate([masks, above.repeat(spectrum.shape[1] - bins, axis=2)], axis=2)
for stem, mask in zip(config["stems"], masks, strict=True):
    pieces = np.fft.irfft(mask * spectrum, axis=1).astype(np.float32) * window[:, None] / 1.5
    signal = np.zeros_like(padded)
    for frame in range(frames):
        signal[:, frame * hop : frame * hop + size] += pieces[..., frame]
    out = signal[:, size - hop :][:, : len(audio)]
    soundfile.write(f"{Path(sys.argv[2]).stem}-{stem}.wav", out.T, rate, subtype="FLOAT")
