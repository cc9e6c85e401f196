"""The training loop: one network per loss, all on the same batches."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..config import ModelConfig
from ..separator import Separator
from ..spectrogram import stft
from ..unet import UNet
from .cache import Song
from .config import TrainConfig
from .data import ClipDataset
from .losses import LOSSES, Loss
from .metrics import frame_sdr, median

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Spectra of a batch, turned back by the mixture's phase; see `unetsep.train.losses`.

    Parameters
    ----------
    mixture
        Magnitudes, ``(batch, channels, bins, frames)``, of unit power in each clip.
    in_phase, quadrature
        True stems, ``(batch, stems, channels, bins, frames)``.
    """

    mixture: Tensor
    in_phase: Tensor
    quadrature: Tensor


def spectra(stems: Tensor, config: ModelConfig) -> Batch:
    """Spectra of the network's bins, each clip scaled to a mixture of unit power.

    Clip by clip, because the full complex spectra of a batch do not fit a CPU's cache.

    Parameters
    ----------
    stems
        ``(batch, stems, channels, samples)``.
    """
    mixtures, in_phase, quadrature = [], [], []
    for clip in stems:
        spectrum = stft(clip, config.n_fft, config.hop_length)
        parts = torch.view_as_real(spectrum.transpose(-1, -2)[..., : config.bins])
        real, imag = parts[..., 0].contiguous(), parts[..., 1].contiguous()
        mix_real, mix_imag = real.sum(dim=0), imag.sum(dim=0)
        magnitude = (mix_real.square() + mix_imag.square()).sqrt()
        turn = 1 / magnitude.clamp(min=1e-12)
        mix_real, mix_imag = mix_real * turn, mix_imag * turn
        scale = 1 / magnitude.square().mean().sqrt().clamp(min=1e-8)
        mixtures.append(magnitude * scale)
        in_phase.append((real * mix_real + imag * mix_imag) * scale)
        quadrature.append((imag * mix_real - real * mix_imag) * scale)
    return Batch(
        *(torch.stack(each).transpose(-1, -2) for each in (mixtures, in_phase, quadrature))
    )


class BlockwiseLoss(torch.autograd.Function):
    """Masks and loss from logits, in blocks of frames that fit a CPU's cache.

    The same value and gradient as the loss of ``masks * mixture`` over the whole batch, in
    a quarter of the time: the full-size intermediate arrays are never written to memory.
    """

    BLOCK_FRAMES = 64

    @staticmethod
    def forward(ctx: Any, logits: Tensor, network: UNet, batch: Batch, loss: Loss) -> Tensor:
        """Loss of a batch, ``logits`` as `UNet.logits` gives them."""
        gradient, total = torch.empty_like(logits), torch.zeros((), device=logits.device)
        for clip in range(len(logits)):
            for start in range(0, logits.shape[-1], BlockwiseLoss.BLOCK_FRAMES):
                at = (clip, ..., slice(start, start + BlockwiseLoss.BLOCK_FRAMES))
                with torch.enable_grad():
                    block = logits[at].transpose(-1, -2).contiguous().transpose(-1, -2).detach()
                    block.requires_grad_()
                    estimate = network.masks(block[None])[0] * batch.mixture[at]
                    value = loss(estimate, batch.in_phase[at], batch.quadrature[at])
                    value = value * (block.numel() / logits.numel())
                    (gradient[at],) = torch.autograd.grad(value, block)
                total += value.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient with respect to the logits."""
        (gradient,) = ctx.saved_tensors
        return gradient * output, None, None, None


def blockwise_loss(logits: Tensor, network: UNet, batch: Batch, loss: Loss) -> Tensor:
    """Loss of the masks that ``logits`` give; see `BlockwiseLoss`."""
    value: Tensor = BlockwiseLoss.apply(logits, network, batch, loss)  # type: ignore[no-untyped-call]
    return value


def input_statistics(network: UNet, dataset: ClipDataset, clips: int = 64) -> None:
    """Set the network's per-bin mean and deviation of the log magnitude."""
    logs = []
    for index in range(clips):
        log = network.compress(spectra(dataset[index][None], dataset.config.model).mixture)
        logs.append(torch.stack([log.mean(dim=(0, 1, 3)), log.square().mean(dim=(0, 1, 3))]))
    mean, square = torch.stack(logs).mean(dim=0)
    network.input_mean.copy_(mean)
    network.input_std.copy_((square - mean.square()).clamp(min=1e-4).sqrt())


class Ema:
    """Exponential moving average of a network's weights and running statistics."""

    def __init__(self, network: UNet, decay: float) -> None:
        self.network, self.decay, self.steps = copy.deepcopy(network).eval(), decay, 0

    def update(self, network: UNet) -> None:
        """Move towards the network; early averages forget faster."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                averaged[name].lerp_(value, 1 - decay)


@torch.no_grad()
def validate(network: UNet, songs: Sequence[Song], config: TrainConfig) -> dict[str, float]:
    """Median over songs of the median-of-frames SDR, in dB per stem and their mean."""
    separator = Separator(network, precision="fp32")
    scores = []
    for song in songs:
        mixture = song.stems["mixture"].T.astype(np.float32) / 32768
        stems = separator.separate(mixture, config.model.sample_rate)
        estimates = np.stack([stems[name] for name in config.model.stems])
        references = np.stack([song.stems[s].T for s in config.model.stems]) / 32768
        scores.append(median(frame_sdr(references, estimates)))
    by_stem = median(np.stack(scores), axis=0)
    return {s: float(v) for s, v in zip(config.model.stems, by_stem, strict=True)} | {
        "mean": float(by_stem.mean())
    }


def fit(config: TrainConfig, train: Sequence[Song], valid: Sequence[Song], run: Path) -> None:
    """Train a network for each loss of the config and keep the best by validation SDR.

    Writes ``config.json``, ``log.jsonl`` and, for each loss, ``<loss>-best.pt`` and
    ``last.pt`` (to resume from) into ``run``.
    """
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(asdict(config), indent=1))
    torch.manual_seed(config.seed)
    first = UNet(config.model)
    first.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    input_statistics(first, ClipDataset(train, config, 10**9, 64))
    networks = {name: copy.deepcopy(first) for name in config.losses}
    averages = {name: Ema(network, config.ema_decay) for name, network in networks.items()}
    optimizers = {
        name: torch.optim.AdamW(
            network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        for name, network in networks.items()
    }
    step, spent, best = 0, 0.0, dict.fromkeys(config.losses, -math.inf)
    last = run / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        step, spent, best = state["step"], state["spent"], state["best"]
        for name in config.losses:
            networks[name].load_state_dict(state["networks"][name])
            averages[name].network.load_state_dict(state["averages"][name])
            averages[name].steps = step
            optimizers[name].load_state_dict(state["optimizers"][name])
    clips = ClipDataset(train, config, step * config.batch_size, 10**8)
    loader = DataLoader(clips, config.batch_size, num_workers=1, prefetch_factor=4)
    begun = time.monotonic() - spent
    running = dict.fromkeys(config.losses, 0.0)
    for stems in loader:
        done = max(step / config.max_steps, (time.monotonic() - begun) / 60 / config.max_minutes)
        done = min(done, 1.0)
        rate = config.learning_rate * min(1, (step + 1) / config.warmup_steps)
        rate *= 0.5 * (1 + math.cos(math.pi * done))
        batch = spectra(stems, config.model)
        for name, network in networks.items():
            optimizer = optimizers[name]
            optimizer.param_groups[0]["lr"] = rate
            network.train()
            with torch.autocast("cpu", torch.bfloat16):
                logits = network.logits(batch.mixture)
            loss = blockwise_loss(logits, network, batch, LOSSES[name])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
            averages[name].update(network)
            running[name] += float(loss.detach())
        step += 1
        finished = done >= 1.0 or step >= config.max_steps
        if step % config.valid_every == 0 or finished:
            for name in config.losses:
                scores = validate(averages[name].network, valid, config)
                entry = {
                    "step": step,
                    "minutes": (time.monotonic() - begun) / 60,
                    "loss": name,
                    "train": running[name] / config.valid_every,
                    "lr": rate,
                    "valid": scores,
                }
                with (run / "log.jsonl").open("a") as log:
                    log.write(json.dumps(entry) + "\n")
                logger.info("%s", entry)
                if scores["mean"] > best[name]:
                    best[name] = scores["mean"]
                    torch.save(averages[name].network.state_dict(), run / f"{name}-best.pt")
                running[name] = 0.0
            state = {
                "step": step,
                "spent": time.monotonic() - begun,
                "best": best,
                "networks": {n: net.state_dict() for n, net in networks.items()},
                "averages": {n: a.network.state_dict() for n, a in averages.items()},
                "optimizers": {n: o.state_dict() for n, o in optimizers.items()},
            }
            torch.save(state, run / "last.tmp")
            (run / "last.tmp").rename(last)
        if finished:
            break
