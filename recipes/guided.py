"""The guide and a network that it guides, from checkpoints that were published.

    python recipes/guided.py guide 2stems spleeter-vocals.safetensors
    python recipes/guided.py join fast spleeter-vocals.safetensors guided.safetensors
    python recipes/guided.py blend trained.safetensors guided.safetensors blended.safetensors

``guide`` takes the vocals network out of Spleeter's two-stem checkpoint (the folder or archive
2stems that Deezer publishes) and writes it in half precision. ``join`` gives it to a network as
its guide, see `unetsep.network.guided`; both separate together then without any training, and
``unetsep train --init-from guided.safetensors`` continues from there. ``blend`` takes a network
that was trained from there and has a branch for low bins, and moves its weights back by 65% of the
way from there, except those of the branch. What training has memorised is lost first.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from pathlib import Path

import torch

from unetsep.errors import UnetsepError, WeightsError
from unetsep.network.guided import Guided, with_guide
from unetsep.network.unet import UNet
from unetsep.spleeter.bundle_files import read_bundle
from unetsep.spleeter.convert import build
from unetsep.storage import write_atomically
from unetsep.weights.checkpoint import serialize
from unetsep.weights.load import checkpoint_hash, load_network

# How far `blend` goes back: the mean SDR of the validation songs was equal from 0.5 to 0.75.
SHARE = 0.65


def vocals_network(source: Path) -> UNet:
    """Spleeter's network for vocals only, whose mask is not changed."""
    bag = build(read_bundle(source))
    network = bag.networks[bag.config.stems.index("vocals")]
    # With a single stem the ratio of masks would be one everywhere.
    network.config = dataclasses.replace(network.config, mask_exponent=0.0)
    return network


def join(network: str, guide: str) -> bytes:
    """The checkpoint of a network with a guide, both by name or path."""
    guided = with_guide(load_network(network), load_network(guide), checkpoint_hash(guide))
    return serialize(guided)


def _load_guided(name: str) -> Guided:
    network = load_network(name)
    if not isinstance(network, Guided):
        raise WeightsError(f"{name} has no guide: blend takes two networks that have one")
    return network


@torch.no_grad()
def blend(trained: str, start: str, share: float = SHARE) -> bytes:
    """The checkpoint of a guided network between two; the branch is that of the first."""
    network, start_network = _load_guided(trained), _load_guided(start)
    start_weights = start_network.rest.state_dict()
    for name, value in network.rest.state_dict().items():
        if value.is_floating_point():  # others count batches
            value.lerp_(start_weights[name], share)
    return serialize(network, half=False)


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    guide_parser = commands.add_parser("guide")
    guide_parser.add_argument("source", type=Path)
    join_parser = commands.add_parser("join")
    join_parser.add_argument("network")
    join_parser.add_argument("guide")
    blend_parser = commands.add_parser("blend")
    blend_parser.add_argument("trained")
    blend_parser.add_argument("start")
    for command in (guide_parser, join_parser, blend_parser):
        command.add_argument("output", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "guide":
            content = serialize(vocals_network(options.source))
        elif options.command == "join":
            content = join(options.network, options.guide)
        else:
            content = blend(options.trained, options.start)
    except UnetsepError as error:
        parser.error(str(error))
    write_atomically(options.output, content)
    print(f"{hashlib.sha256(content).hexdigest()}  {options.output}")


if __name__ == "__main__":
    main()
