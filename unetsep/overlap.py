"""Masks for a stream of frames: overlapping segments, cross-faded in the mask domain.

Only the network needs segments; the STFT and its inverse run over the whole song. So no
seam of waveforms can exist, and masks that sum to one still do after the cross-fade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

# Complex spectrum (channels, bins, frames) to masks (stems, channels, bins, frames), fp32.
Estimate = Callable[[Tensor], Tensor]


class SegmentedMasks:
    """Estimate masks segment by segment while the mixture's frames stream through.

    Neighbouring segments share ``overlap`` frames, over which their masks are cross-faded
    with linear weights that sum to one: what the network says at a border, where it sees
    the least context, has the least weight. The last segment is moved back so that it is as
    long as the others; a song shorter than one segment is padded with silence to the
    next multiple of ``multiple``.

    Parameters
    ----------
    estimate
        The network.
    bins
        Bins the network sees, the lowest of the spectrum.
    segment, overlap
        In frames; ``overlap`` at most half of ``segment``.
    multiple
        The network takes only multiples of this many frames.
    lead
        Silent frames that the first segment begins with.
    fill
        Fill up the last segment with silence, whatever its length.
    """

    def __init__(
        self,
        estimate: Estimate,
        bins: int,
        segment: int,
        overlap: int,
        multiple: int,
        *,
        lead: int = 0,
        fill: bool = False,
    ) -> None:
        if not 0 <= 2 * overlap <= segment:
            raise ValueError(f"overlap must be 0 to half of {segment} frames, got {overlap}")
        self._estimate, self._bins, self._multiple = estimate, bins, multiple
        self._segment, self._overlap = segment, overlap
        self._lead, self._fill = lead, fill
        self._frames: Tensor | None = None  # (channels, all bins, frames) not yet masked
        self._context: Tensor | None = None  # the network's bins of the frames before those
        self._tail: Tensor | None = None  # faded-out masks of the last segment's overlap
        self.calls = 0

    def push(self, spectrum: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(masks, spectrum)`` pairs for the frames whose masks are final.

        Parameters
        ----------
        spectrum
            Complex, ``(channels, all bins, frames)``.

        Yields
        ------
        tuple
            Masks ``(stems, channels, bins, frames)`` and the mixture's spectrum
            ``(channels, all bins, frames)`` of the same frames.
        """
        old = self._frames
        if old is None:
            old = spectrum.new_zeros(*spectrum.shape[:-1], self._lead)
        self._frames = torch.cat([old, spectrum], dim=-1)
        # More than a segment must be there: only then is it not the last one.
        while self._frames.shape[-1] > self._segment:
            frames = self._frames[..., : self._segment]
            masks = self._network(frames[:, : self._bins])
            keep = self._segment - self._overlap
            done = self._fade_in(masks)[..., :keep]
            self._tail = masks[..., keep:] * (1 - self._fade(masks)) if self._overlap else None
            self._context = frames[:, : self._bins, :keep]
            self._frames = self._frames[..., keep:]
            yield self._without_lead(done, frames[..., :keep])

    def flush(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pair for all frames that are left."""
        frames, self._frames = self._frames, None
        if frames is None or frames.shape[-1] == self._lead:
            return
        seen = frames[:, : self._bins]
        count = seen.shape[-1]
        if self._fill:
            padded = functional.pad(seen, (0, self._segment - count))
            masks = self._network(padded)[..., :count]
        elif self._context is not None and count < self._segment:
            before = self._context[..., count - self._segment :]
            masks = self._network(torch.cat([before, seen], dim=-1))[..., -count:]
        else:
            padding = -count % self._multiple
            masks = self._network(functional.pad(seen, (0, padding)))[..., :count]
        yield self._without_lead(self._fade_in(masks), frames)

    def _without_lead(self, masks: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        lead, self._lead = self._lead, 0
        return masks[..., lead:], frames[..., lead:]

    def _network(self, spectrum: Tensor) -> Tensor:
        self.calls += 1
        return self._estimate(spectrum)

    def _fade(self, like: Tensor) -> Tensor:
        """Rising weights over the overlap, ``(overlap,)``; with those that fall they sum to 1."""
        position = torch.arange(self._overlap, device=like.device, dtype=torch.float32) + 0.5
        return position / self._overlap

    def _fade_in(self, masks: Tensor) -> Tensor:
        if self._tail is None:
            return masks
        head = masks[..., : self._overlap] * self._fade(masks) + self._tail
        return torch.cat([head, masks[..., self._overlap :]], dim=-1)
