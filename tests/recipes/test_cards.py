"""The cards of docs/research/models.md are those that the manifest gives."""

from __future__ import annotations

import importlib
from pathlib import Path

from unetsep.weights.manifest import read_manifest

ROOT = Path(__file__).parents[2]


def test_the_page_has_a_card_for_each_checkpoint_as_the_manifest_says() -> None:
    cards = importlib.import_module("cards")
    page = (ROOT / "docs/research/models.md").read_text(encoding="utf-8")
    manifest = read_manifest(ROOT / "weights_manifest.json")
    assert len(manifest.checkpoints) >= 8
    assert cards.section(manifest) in page
