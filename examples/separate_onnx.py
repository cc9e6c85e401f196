"""Separate without torch: unetsep export-onnx default -o default.onnx, then give both to this."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


def stft(signal, size, hop):
    """Spectrum (channels, bins, frames) of a signal (channels, samples)."""
    pieces = np.lib.stride_tricks.sliding_window_view(signal, size, axis=-1)[:, ::hop]
    windowed = pieces * np.hanning(size + 1)[:-1].astype(np.float32)
    return np.fft.rfft(windowed).astype(np.complex64).transpose(0, 2, 1)


def overlap_add(spectrum, hop):
    """The inverse with windows of four hops; the sum of their squares is 1.5."""
    pieces = np.fft.irfft(spectrum, 4 * hop, axis=1) * np.hanning(4 * hop + 1)[:-1, None] / 1.5
    signal = np.zeros((len(spectrum), (spectrum.shape[2] + 3) * hop), np.float32)
    for frame, piece in enumerate(pieces.transpose(2, 0, 1)):
        signal[:, frame * hop : (frame + 4) * hop] += piece
    return signal


def fine_magnitudes(spectrum, first, count):
    """Low bins under windows twice as long: the signal at a lower rate, transformed again."""
    size = 2 ** (first + count + 15).bit_length()
    slow = np.pad(overlap_add(spectrum[:, :size], size // 2), [(0, 0), (size, size)])
    fine = np.pad(abs(stft(slow, 4 * size, size // 2)), [(0, 0), (2, 0), (0, 0)])
    return fine[:, 2 * first : 2 * (first + count) + 3]


if len(sys.argv) != 3:
    sys.exit(f"usage: {sys.argv[0]} MODEL.onnx SONG")
for path in map(Path, sys.argv[1:]):
    if not path.is_file():
        sys.exit(f"there is no file {path}")
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
config = json.loads(session.get_modelmeta().custom_metadata_map["config"])
size, hop, bins, segment = (config[k] for k in ("n_fft", "hop_length", "bins", "segment_frames"))
if existing := [f"{stem}.wav" for stem in config["stems"] if Path(f"{stem}.wav").exists()]:
    sys.exit(f"{', '.join(existing)} would be overwritten: run this in another folder")
try:
    audio, rate = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
except soundfile.SoundFileError as error:
    sys.exit(f"{sys.argv[2]} cannot be read: {error}")
if (rate, audio.shape[1]) != (config["sample_rate"], config["channels"]):
    sys.exit("expected the model's sample rate and channels")
# Every sample is in four windows; shorter audio than a segment is padded to whole units of frames.
frames, unit = -(-(len(audio) + size - hop) // hop), 2 ** len(config["filters"])
frames = max(frames, min(-(-frames // unit) * unit, segment))
padded = np.pad(audio.T, [(0, 0), (size - hop, frames * hop - len(audio))])
spectrum = stft(padded, size, hop)
# Masks of segments, cross-faded over their shared quarter. The last segment starts earlier.
overlap, step, segment = segment // 4, segment - segment // 4, min(segment, frames)
fade = (np.arange(overlap, dtype=np.float32) + 0.5) / overlap
masks = np.zeros((len(config["stems"]), config["channels"], bins, frames), np.float32)
for start in range(0, max(1, frames - overlap), step):
    begin = min(start, frames - segment)
    part = spectrum[..., begin : begin + segment]
    inputs = {"magnitude": abs(part[None, :, :bins])}
    if config["low_bins"]:
        inputs["fine"] = fine_magnitudes(part, config["low_first"], config["low_bins"])[None]
    mask = session.run(None, inputs)[0][0][..., start - begin :]
    if start:
        mask[..., :overlap] *= fade
        mask[..., :overlap] += masks[..., start : start + overlap] * (1 - fade)
    masks[..., start : start + segment] = mask
# Above the network's band, extend the mean of its top bins.
masks = np.pad(masks, [(0, 0)] * 2 + [(0, size // 2 + 1 - bins), (0, 0)], "mean", stat_length=100)
for stem, mask in zip(config["stems"], masks, strict=True):
    signal = overlap_add(mask * spectrum, hop)[:, size - hop :][:, : len(audio)]
    soundfile.write(f"{stem}.wav", signal.T, rate, subtype="FLOAT")
