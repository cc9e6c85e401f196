"""Checkpoints: the manifest, the files, and the networks in them.

load         a name or path -> a network, with all checks
manifest     published models, and those that the user imported
model        a name or path -> one module, waveform in, stems out
onnx         a model's network as an ONNX file
checkpoint   bytes <-> network
datasets     songs that models were trained on, listed once in the manifest
hub          downloads and their cache
"""

from .load import load_network

__all__ = ["load_network"]
