"""Separate without torch: unetsep export-onnx fast -o fast.onnx, then give both to this."""

import json
import sys

import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
config = json.loads(session.get_modelmeta().custom_metadata_map["config"])
size, hop, bins = config["n_fft"], config["hop_length"], config["bins"]
audio, rate = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
if (rate, audio.shape[1], 0) != (config["sample_rate"], config["channels"], config["low_bins"]):
    sys.exit("expected the model's rate and channels, and a model without a branch for low bins")
# STFT: every sample lies under four windows, and there are whole units of frames.
window, unit = np.hanning(size + 1)[:-1].astype(np.float32), 2 ** len(config["filters"])
frames = -(-(len(audio) + size - hop) // (hop * unit)) * unit
padded = np.pad(audio.T, ((0, 0), (size - hop, frames * hop + size - len(audio))))
pieces = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop][:, :frames]
spectrum = np.fft.rfft(pieces * window).astype(np.complex64).transpose(0, 2, 1)
# Masks of overlapping segments, cross-faded.
segment = min(config["segment_frames"], frames)
fade = np.minimum(1, (np.arange(segment, dtype=np.float32) + 0.5) / (segment // 4))
fade, weight = np.minimum(fade, fade[::-1]), np.zeros(frames, np.float32)
masks = np.zeros((len(config["stems"]), config["channels"], bins, frames), np.float32)
for start in sorted({*range(0, frames - segment, segment - segment // 4), frames - segment}):
    at = slice(start, start + segment)
    (found,) = session.run(None, {"magnitude": abs(spectrum[None, :, :bins, at])})
    masks[..., at] += found[0] * fade
    weight[at] += fade
# Above the network's band the mean of its top bins goes on; then the inverse STFT.
above = [(0, 0), (0, 0), (0, size // 2 + 1 - bins), (0, 0)]
masks = np.pad(masks / weight, above, "mean", stat_length=100)
for stem, mask in zip(config["stems"], masks, strict=True):
    signal = np.zeros_like(padded)
    for frame, piece in enumerate(np.fft.irfft(mask * spectrum, axis=1).transpose(2, 0, 1)):
        signal[:, frame * hop : frame * hop + size] += piece * window / 1.5
    signal = signal[:, size - hop : size - hop + len(audio)].T
    soundfile.write(f"{stem}.wav", signal, rate, subtype="FLOAT")
