"""Training losses.

functions    the losses and their registry, LOSSES
own          users' own losses, and a test kit: check
hearing      the model of hearing of the perceptual loss
spectra      from clips to spectra and losses
guidance     losses of guided networks, whose vote is fixed
blocks       blocks that fit the cache, on several threads
"""

from .functions import LOSSES
from .own import check

__all__ = ["LOSSES", "check"]
