"""Gradients of a step as one CUDA graph: recorded once, then replayed at every step.

Networks as small as these keep a GPU waiting: it finishes before Python launches the next
operation. A graph launches all operations of a step, with the memory that they read and write, by
one call.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from ..errors import first_line

logger = logging.getLogger(__name__)

# Steps before the recorded one, in which libraries choose their algorithms and create what they
# need.
WARM_UP = 3
# How torch warns of what waits for a GPU, see `torch.cuda.set_sync_debug_mode`.
WAITS = "called a synchronizing CUDA operation"


class RecordedStep:
    """Losses of a batch and their gradients, at the price of one call.

    The first `WARM_UP` steps run operation by operation. The next one is recorded; from then on
    only the graph is replayed, with each batch copied to the memory of the first. It equals the
    function only if that always does the same. So the function must not ask for values, and what it
    reads besides the batch must stay at its place in memory, as weights and buffers do.

    Parameters
    ----------
    losses
        From clips ``(batch, stems, 2, samples)``, always of one shape, to the losses, whose sum
        is differentiated.
    parameters
        What gets the gradients.
    """

    def __init__(
        self, losses: Callable[[Tensor], Tensor], parameters: Iterable[nn.Parameter]
    ) -> None:
        self.losses, self.parameters = losses, list(parameters)
        self.steps, self.fails = 0, False
        self._play: Callable[[], object] | None = None

    def __call__(self, clips: Tensor) -> Tensor:
        """Losses of a batch, without a history; gradients are where an optimiser expects them."""
        if self._play is None and self.steps >= WARM_UP and not self.fails:
            self._record(clips)
        self.steps += 1
        if self._play is None:
            with on_recorded_stream(clips.device):
                return self._checked(clips) if self.steps == WARM_UP else self._eager(clips)
        self._clips.copy_(clips, non_blocking=True)
        self._play()
        for weights, gradient in zip(self.parameters, self._gradients, strict=True):
            weights.grad = gradient
        return self._values

    def _checked(self, clips: Tensor) -> Tensor:
        """The last step before recording; if it waits for the GPU, none is recorded."""
        with noting_waits(clips.device) as places:
            values = self._eager(clips)
        if places:
            self._give_up(f"it waits for the GPU at {places[0]}")
        return values

    def _record(self, clips: Tensor) -> None:
        """Record a step; if that fails, steps still run operation by operation."""
        buffer = clips.clone()
        try:
            self._play, self._values = record(lambda: self._eager(buffer), clips.device)
        except RuntimeError as error:
            self._give_up(first_line(error))
            return
        self._clips = buffer
        self._gradients = [weights.grad for weights in self.parameters]

    def _give_up(self, reason: str) -> None:
        self.fails = True
        logger.warning(
            "the training step cannot be recorded as a CUDA graph (%s): it runs operation by "
            "operation, which is slower; a custom loss must not ask for values, as item() does",
            reason,
        )

    def _eager(self, clips: Tensor) -> Tensor:
        for weights in self.parameters:
            weights.grad = None
        kind = clips.device.type
        half, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        # A weight in half precision must not be cached: it changes with the next step.
        with torch.autocast(kind, half, enabled, cache_enabled=False):
            values = self.losses(clips)
        with torch.autocast(kind, enabled=False):
            values.sum().backward()  # type: ignore[no-untyped-call]
        return values.detach()


@contextlib.contextmanager
def noting_waits(device: torch.device) -> Iterator[list[str]]:
    """Note where work waits for a CUDA device, which no recording allows.

    This is checked beforehand, since torch does not recover from a recording that fails. Up to 2.11
    its allocator then no longer frees memory that two streams have used, and each validation needs
    some (pytorch pull request 180395).

    Yields
    ------
    list of str
        Filled at the end: files and lines.
    """
    places: list[str] = []
    if device.type != "cuda":
        yield places
        return
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        caught.clear()  # of the warning that this is a prototype
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    for each in caught:
        if WAITS in str(each.message):
            places.append(f"{each.filename}:{each.lineno}")
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


@contextlib.contextmanager
def on_recorded_stream(device: torch.device) -> Iterator[None]:
    """Work on the stream that is recorded later, in turn with the usual one.

    Autograd does some of its work on the stream that a weight was first used on.
    """
    if device.type != "cuda":
        yield
        return
    usual, stream = torch.cuda.current_stream(device), _stream(device)
    stream.wait_stream(usual)
    with torch.cuda.stream(stream):
        yield
    usual.wait_stream(stream)


def record(work: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
    """Record what a function does on a CUDA device, without doing it.

    Returns
    -------
    play
        Replays it, any number of times.
    result
        What the function returned: where each time the result will be.
    """
    graph, stream = torch.cuda.CUDAGraph(), _stream(device)
    # Other threads may continue: loaders lock memory, and autograd has threads of its own. After a
    # recording that fails, only the stream's own context returns to the usual one.
    with (
        torch.cuda.stream(stream),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        result = work()
    return graph.replay, result


@functools.lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
