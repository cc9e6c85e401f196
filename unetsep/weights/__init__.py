"""Checkpoints: what is published, where the bytes come from, what becomes of them.

load         a name or path -> a network, with every check made
manifest     what is published, and what the user imported
model        a name or path -> one module, waveform in, stems out
onnx         a model's network as an ONNX file
checkpoint   bytes <-> network
datasets     what they were trained on, listed once in the manifest
hub          downloads and their cache
"""

from .load import load_network

__all__ = ["load_network"]
