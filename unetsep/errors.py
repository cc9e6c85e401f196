"""Errors that come from the outside world; bad arguments raise `ValueError`."""

from __future__ import annotations


class UnetsepError(Exception):
    """Base of all errors a user can cause or cure; the message is one clear sentence."""


class AudioError(UnetsepError):
    """An audio file that cannot be read, separated or written."""


class WeightsError(UnetsepError):
    """A checkpoint that is unknown, missing, damaged or does not fit its config."""


class CancelledError(UnetsepError):
    """A progress callback asked to stop; nothing was left behind."""
