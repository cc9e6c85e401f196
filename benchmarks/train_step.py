"""Where the time of a training step on a CPU goes: ``python benchmarks/train_step.py``.

Measures one step (batch 4, six seconds, default network, channels_last, one loss) as written
straightforwardly, as unetsep does it, and the convolutions alone, forward and backward. Times are
the least of several rounds, in seconds of the clock or in CPU seconds of this process (meant for
``OMP_NUM_THREADS=1``, where other programs disturb little). The precision is by default
what ``unetsep train`` would choose on this machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unetsep.network.devices import keep_freed_memory, training_precision
from unetsep.train.config import TrainConfig
from unetsep.train.losses.functions import build_loss
from unetsep.train.losses.spectra import blockwise_loss, spectra
from unetsep.train.module import SeparationModule


def autocast(precision: str) -> torch.autocast:
    """Half precision for convolutions, or nothing."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def convolutions(network: nn.Module, magnitude: Tensor, precision: str) -> Callable[[], None]:
    """Forward and backward of each convolution, with inputs of the right sizes."""
    inputs: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        part.register_forward_hook(
            lambda m, layer_input, _: inputs.append((m, layer_input[0].detach()))
        )
        for part in network.modules()
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with autocast(precision), torch.no_grad():
        network.logits(magnitude)
    for hook in hooks:
        hook.remove()
    first = inputs[0][1]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    inputs = [
        (m, layer_input.to(kind).requires_grad_(layer_input is not first))
        for m, layer_input in inputs
    ]

    def run() -> None:
        for part, layer_input in inputs:
            with autocast(precision):
                out = part(layer_input)
            out.backward(out.detach())

    return run


def straightforward(network: nn.Module, clips: Tensor, config: TrainConfig) -> Tensor:
    """A step as one would write it first."""
    model = config.model
    window = torch.hann_window(model.n_fft)
    spectrum = torch.stft(
        clips.flatten(0, 2),
        model.n_fft,
        model.hop_length,
        window=window,
        center=False,
        return_complex=True,
    ).unflatten(0, clips.shape[:3])
    spectrum = spectrum[..., : model.bins, :]
    mixture = spectrum.sum(dim=1)
    with autocast(config.precision):
        logits = network.logits(mixture.abs())
    estimate = logits.softmax(dim=1) * mixture[:, None]
    return (estimate - spectrum).abs().mean()


def main() -> None:
    """Print CPU seconds of each part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--loss", default="l1", help="of unetsep; the straightforward step takes l1"
    )
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--wall", action="store_true", help="not CPU time; for several threads")
    parser.add_argument("--plain-allocator", action="store_true", help="as without unetsep")
    options = parser.parse_args()
    if not options.plain_allocator:
        keep_freed_memory()
    torch.manual_seed(0)
    precision = training_precision(options.precision, "cpu")
    config = TrainConfig(losses=(options.loss,), precision=precision)
    module = SeparationModule(config)
    network = module.network(options.loss)
    optimizer = module.configure_optimizers()
    loss = build_loss(options.loss, config.model)
    clips = 0.1 * torch.randn(config.batch_size, 4, 2, config.clip_samples)
    batch = spectra(clips, config.model)

    def forward() -> Tensor:
        with autocast(precision):
            return network.logits(batch.mixture)

    def finish(value: Tensor) -> None:
        optimizer.zero_grad()
        value.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()

    def unetsep_step() -> None:
        sound = spectra(clips, config.model)
        with autocast(precision):
            logits = network.logits(sound.mixture)
        finish(blockwise_loss(logits, network, sound, loss))

    logits = forward().detach().requires_grad_()
    grad = torch.randn_like(logits)
    parts: dict[str, Callable[[], object]] = {
        "convolutions": convolutions(network, batch.mixture, precision),
        "STFT": lambda: spectra(clips, config.model),
        "network, forward and backward": lambda: forward().backward(grad),
        "masks and loss": lambda: blockwise_loss(logits, network, batch, loss).backward(),
        "whole step": unetsep_step,
        "straightforward step": lambda: finish(straightforward(network, clips, config)),
    }
    least = dict.fromkeys(parts, float("inf"))
    clock = time.perf_counter if options.wall else time.process_time
    for _ in range(options.rounds):
        for name, run in parts.items():
            start = clock()
            run()
            least[name] = min(least[name], clock() - start)
    print(f"{precision}, {torch.get_num_threads()} threads")
    for name, seconds in least.items():
        ratio, rate = seconds / least["convolutions"], config.batch_size / seconds
        print(f"{name:32} {seconds:6.3f} s  {ratio:5.2f} x  {rate:5.1f} clips/s")


if __name__ == "__main__":
    main()
