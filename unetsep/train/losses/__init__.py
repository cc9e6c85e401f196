"""What is minimised.

functions    the losses and their registry, LOSSES
own          losses of one's own, and a test kit: check
hearing      the model of hearing behind the perceptual loss
spectra      from clips to what the losses take
guidance     the same beside a guide, whose vote is fixed
blocks       pieces that fit the cache, on several threads
"""

from .functions import LOSSES
from .own import check

__all__ = ["LOSSES", "check"]
