"""Excitation of the ear: critical bands, spreading and the threshold in quiet.

The parts of a psychoacoustic model, each from its own source:

- Bark scale: Traunmüller, "Analytical expressions for the tonotopic sensory scale",
  J. Acoust. Soc. Am. 88 (1990).
- Spreading of masking along the Bark scale: Schroeder, Atal & Hall, "Optimizing digital
  speech coders by exploiting masking properties of the human ear", J. Acoust. Soc. Am. 66
  (1979).
- Threshold in quiet: Terhardt, "Calculating virtual pitch", Hearing Research 1 (1979).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ...config import ModelConfig

# Spreading smooths over about a Bark, which bands of a quarter Bark sample well.
BANDS_PER_BARK = 4.0
# Sound pressure level in dB of a mixture of average power, a comfortable level.
LISTENING_LEVEL = 75.0
# Lower bound of the threshold in quiet, in dB SPL: rooms are not quieter.
ROOM_LEVEL = 15.0


def bark(hertz: Tensor) -> Tensor:
    """Critical-band rate ``26.81 f / (1960 + f) - 0.53`` in Bark."""
    return 26.81 * hertz / (1960 + hertz) - 0.53


def threshold_in_quiet(hertz: Tensor) -> Tensor:
    """Level of a just audible tone, in dB SPL, with ``f`` in kHz.

    ``3.64 f^-0.8 - 6.5 exp(-0.6 (f - 3.3)^2) + 0.001 f^4``
    """
    f = hertz.clamp(min=20.0) / 1000
    return 3.64 * f**-0.8 - 6.5 * torch.exp(-0.6 * (f - 3.3) ** 2) + 1e-3 * f**4


def spreading(distance: Tensor) -> Tensor:
    """Level in dB at ``distance`` Bark above a masker at 0 dB.

    ``15.81 + 7.5 (d + 0.474) - 17.5 sqrt(1 + (d + 0.474)^2)``: -25 dB per Bark downwards,
    -10 dB per Bark upwards.
    """
    d = distance + 0.474
    return 15.81 + 7.5 * d - 17.5 * (1 + d.square()).sqrt()


@functools.lru_cache(maxsize=8)
def hearing_model(config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Bands, spreading and threshold in quiet for the bins of a network.

    Parameters
    ----------
    config
        Gives the bins and their frequencies.
    device
        Of the arrays.

    Returns
    -------
    bands : Tensor
        ``(bands, bins)``, one where a bin belongs to a band: powers to band powers.
    spread : Tensor
        ``(bands, bands)``, band powers to excitation.
    quiet : Tensor
        ``(bands,)``, power below which nothing is audible, relative to clips whose mixture
        has unit power.
    """
    hertz = torch.arange(config.bins, dtype=torch.float64)
    hertz *= config.sample_rate / config.n_fft
    rate = bark(hertz)
    index = ((rate - rate[0]) * BANDS_PER_BARK).floor().long()
    # Low bands can be narrower than a bin: renumber the bands that have bins.
    used, index = torch.unique(index, return_inverse=True)
    count = len(used)
    bands = torch.nn.functional.one_hot(index, count).T.to(torch.float64)  # (bands, bins)
    width = bands.sum(dim=1)
    centre = (bands @ rate) / width
    level = spreading(centre[:, None] - centre[None, :])  # row: band; column: masker
    spread = 10 ** (level / 10)
    lowest = threshold_in_quiet((bands @ hertz) / width).clamp(min=ROOM_LEVEL)
    # A clip of unit power has that power in each bin on average, that is ``bins`` in all.
    quiet = config.bins * 10 ** ((lowest - LISTENING_LEVEL) / 10)
    return tuple(each.float().to(device) for each in (bands, spread, quiet))  # type: ignore[return-value]
