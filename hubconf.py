"""Entry points for `torch.hub`: the models as modules, waveform in, stems out.

From a checkout, with the model's name as a positional argument::

    model = torch.hub.load("path/of/the/checkout", "unetsep", "mse", source="local")
    stems = model(torch.zeros(1, 2, 44_100))  # (batch, stems, channels, samples)
"""

from __future__ import annotations

from typing import Any

dependencies = ["torch", "numpy", "safetensors", "soundfile", "soxr", "huggingface_hub"]


def unetsep(name: str = "default") -> Any:
    """A model by its name; see ``unetsep.Model.from_pretrained``.

    Parameters
    ----------
    name
        A name of ``unetsep models``, or the path of a checkpoint. Pass it by position, after
        ``"unetsep"``: ``model=`` is a parameter of `torch.hub.load` itself.
    """
    import unetsep as package

    return package.Model.from_pretrained(name)
