"""Save Hybrid Transformer Demucs with random weights: ``FOLDER``, for ``demucs --repo``.

Runs where Demucs is, see `peers.py`. The settings are those with which Demucs's own grid
`grids/mmi.py` trained the published ``htdemucs``; 42 million parameters, segments of 7.8 s.
"""

import sys
from fractions import Fraction
from pathlib import Path

import torch
from demucs.htdemucs import HTDemucs

SOURCES = ["drums", "bass", "other", "vocals"]
SETTINGS = {
    "channels": 48,
    "depth": 4,
    "dconv_mode": 3,
    "bottom_channels": 512,
    "t_layers": 5,
    "t_heads": 8,
    "t_dropout": 0.02,
    "segment": Fraction(39, 5),
}


def main() -> None:
    """Write ``random.th``."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = HTDemucs(SOURCES, **SETTINGS).eval()
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{count / 1e6:.1f} million parameters")
    package = {
        "klass": HTDemucs,
        "args": (SOURCES,),
        "kwargs": SETTINGS,
        "state": model.state_dict(),
    }
    torch.save(package, folder / "random.th")


if __name__ == "__main__":
    main()
