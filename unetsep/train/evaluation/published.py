"""Scores that others published, to stand beside measured ones but never among them.

SDR of BSS Eval v4, median of frames, median of tracks, in dB. What each was trained and
tested on is part of the number. "The paper" is the one whose comparison of losses unetsep
reproduces: Y. Tang, "Comparing Different Spectral Losses of a U-Net Based Audio Source
Separation System", Georgia Tech.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...config import STEMS

PAPER = (
    'Y. Tang, "Comparing Different Spectral Losses of a U-Net Based Audio Source Separation System"'
)
FULL = "MUSDB18 test, 50 full songs"
HQ = "MUSDB18-HQ test, 50 full songs"
TWO_MINUTES = "MUSDB18 test, songs cut to two minutes"

MUSDB = "MUSDB18"
PRIVATE = "about 25,000 private songs"


@dataclass(frozen=True)
class Published:
    """One published row.

    Parameters
    ----------
    name
        What was scored.
    sdr
        Vocals, drums, bass, other in dB; NaN where nothing was published.
    test, train
        Data sets.
    source
        Where the numbers stand.
    """

    name: str
    sdr: tuple[float, float, float, float]
    test: str
    train: str
    source: str

    @property
    def mean(self) -> float:
        """Mean of the four stems; NaN where one is missing."""
        return sum(self.sdr) / len(STEMS)


def _vocals(name: str, sdr: float) -> Published:
    nan = math.nan
    return Published(name, (sdr, nan, nan, nan), TWO_MINUTES, MUSDB, f"{PAPER}, Figure 2")


def _sisec(name: str, sdr: tuple[float, float, float, float]) -> Published:
    # Their frame mask differs for vocals, which reads a little higher.
    test = f"{FULL}; vocals in the set vocals/accompaniment"
    return Published(name, sdr, test, "-", "frame scores in sigsep/sigsep-mus-2018-analysis")


PUBLISHED = (
    _vocals("paper, vocals system, MSE", 4.97),
    _vocals("paper, vocals system, L1", 4.62),
    _vocals("paper, vocals system, log MSE", 1.15),
    _vocals("paper, vocals system, mel MSE", 0.77),
    Published(
        "paper, four stems", (4.52, 5.04, 4.06, 3.08), TWO_MINUTES, MUSDB, f"{PAPER}, Table 1"
    ),
    Published(
        "paper, Spleeter trained on MUSDB18",
        (5.10, 5.15, 4.27, 3.21),
        TWO_MINUTES,
        MUSDB,
        f"{PAPER}, Table 1",
    ),
    Published(
        "Spleeter, trained on MUSDB18 (authors)",
        (4.69, 4.59, 3.71, 3.10),
        FULL,
        MUSDB,
        "deezer/spleeter issue 81, before a fix of its inverse STFT",
    ),
    Published(
        "Spleeter, trained on MUSDB18 (a user)",
        (4.67, 4.50, 3.89, 3.18),
        FULL,
        MUSDB,
        "deezer/spleeter issue 670",
    ),
    Published(
        "Spleeter 4stems, masks", (6.55, 5.93, 5.10, 4.24), FULL, PRIVATE, "Spleeter's paper.md"
    ),
    Published(
        "Spleeter 4stems, Wiener filter",
        (6.86, 6.71, 5.51, 4.55),
        FULL,
        PRIVATE,
        "Spleeter's paper.md",
    ),
    Published("Open-Unmix UMX", (6.32, 5.73, 5.23, 4.02), FULL, MUSDB, "Open-Unmix README"),
    Published("Open-Unmix UMXHQ", (6.25, 6.04, 5.07, 4.28), HQ, "MUSDB18-HQ", "Open-Unmix README"),
    Published(
        "Open-Unmix UMXL",
        (7.21, 7.15, 6.02, 4.89),
        "MUSDB18 or MUSDB18-HQ test, not said",
        "private songs",
        "Open-Unmix README",
    ),
    Published(
        "Demucs v1, L1",
        (6.08, 6.25, 5.83, 4.00),
        FULL,
        MUSDB,
        "frame scores in the Demucs repository, branch v1",
    ),
    Published(
        "Demucs v2, L1, first of three seeds",
        (7.06, 6.83, 6.58, 4.43),
        FULL,
        MUSDB,
        "frame scores in the Demucs repository, branch v2",
    ),
    Published(
        "Hybrid Demucs v3",
        (8.13, 8.24, 8.76, 5.59),
        HQ,
        "MUSDB18-HQ",
        "its paper, as quoted in facebookresearch/demucs issue 493",
    ),
    _sisec("SiSEC 2018 MIX (mixture / 4)", (1.12, 1.33, 0.67, 1.16)),
    _sisec("SiSEC 2018 IRM1 (oracle)", (8.52, 7.33, 6.18, 6.92)),
    _sisec("SiSEC 2018 IRM2 (oracle)", (9.43, 8.45, 7.12, 7.85)),
)
