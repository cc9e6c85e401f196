"""The guide and a network that it guides, from checkpoints that were published.

    python recipes/guided.py guide 2stems spleeter-vocals.safetensors
    python recipes/guided.py join fast spleeter-vocals.safetensors guided.safetensors

``guide`` takes the vocals network out of Spleeter's two-stem checkpoint (the folder or archive
2stems that Deezer publishes) and writes it in half precision. ``join`` gives it to a network as
its guide, see `unetsep.network.guided`; both separate together then without any training, and
``unetsep train --init-from guided.safetensors`` goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from pathlib import Path

from unetsep.network.guided import with_guide
from unetsep.network.per_stem import PerStem
from unetsep.network.unet import UNet
from unetsep.spleeter.bundle_files import read_bundle
from unetsep.spleeter.convert import build
from unetsep.storage import write_atomically
from unetsep.weights.checkpoint import serialize
from unetsep.weights.load import checkpoint_hash, load_network


def vocals_network(source: Path) -> UNet:
    """Spleeter's network for vocals alone, whose mask stays as it is."""
    bag = build(read_bundle(source))
    assert isinstance(bag, PerStem)
    network = bag.networks[bag.config.stems.index("vocals")]
    # With a single stem the ratio of masks would be one everywhere.
    network.config = dataclasses.replace(network.config, mask_exponent=0.0)
    return network


def join(network: str, guide: str) -> bytes:
    """The checkpoint of a network with a guide, both by name or path."""
    joined = with_guide(load_network(network), load_network(guide), checkpoint_hash(guide))
    return serialize(joined)


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    guide = commands.add_parser("guide")
    guide.add_argument("source", type=Path)
    joined = commands.add_parser("join")
    joined.add_argument("network")
    joined.add_argument("guide")
    for command in (guide, joined):
        command.add_argument("output", type=Path)
    options = parser.parse_args()
    if options.command == "guide":
        content = serialize(vocals_network(options.source))
    else:
        content = join(options.network, options.guide)
    write_atomically(options.output, content)
    print(f"{hashlib.sha256(content).hexdigest()}  {options.output}")


if __name__ == "__main__":
    main()
