"""What is measured before the first step."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.train.synthetic import MODEL, songs, tiny
from unetsep.network.per_stem import PerStem
from unetsep.train.calibration import gradient_norm, set_input_statistics
from unetsep.train.losses import functions as losses
from unetsep.train.module import SeparationModule


def test_losses_start_with_equal_gradient_norms() -> None:
    from unetsep.train.data.clip_plans import ClipPlanner
    from unetsep.train.data.clips import ClipDataset
    from unetsep.train.losses.spectra import blockwise_loss, spectra

    config = tiny(losses=tuple(losses.LOSSES))
    module = SeparationModule(config)
    clips = ClipDataset(ClipPlanner(songs()[0], config))
    module.calibrate(clips, count=8)
    batch = spectra(torch.stack([clips[10**12 + i] for i in range(4)]), config.model)
    for (name, loss), scale in zip(module.losses.items(), module.scales, strict=True):
        network = module.network(name)
        value = blockwise_loss(network.logits(batch.mixture), network, batch, loss) * scale
        value.backward()
        assert gradient_norm(list(network.parameters())) == pytest.approx(1.0, rel=1e-3), name


def test_each_network_of_per_stem_gets_the_input_statistics() -> None:
    network = PerStem(dataclasses.replace(MODEL, networks="per_stem", mask="sigmoid"))
    set_input_statistics(network, [torch.rand(1, 2, 64, 32)])
    means = [part.input_mean for part in network.networks]
    assert len(means) == 4
    assert all(bool(mean.any()) and torch.equal(mean, means[0]) for mean in means)
