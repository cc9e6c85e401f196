"""Scores of an evaluation into the manifest, and a card for each checkpoint.

    unetsep eval --musdb-root MUSDB18-7 --all-losses -o evaluation
    python recipes/cards.py evaluation/report.json

writes the scores of the bundled models, with their intervals, into weights_manifest.json, and
what the manifest says about each checkpoint between the two marks in docs/models.md. Without
a report the manifest stays as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from unetsep.config import STEMS, ModelConfig
from unetsep.network.build import build
from unetsep.weights.manifest import Checkpoint, Manifest, read_manifest, write_manifest

ROOT = Path(__file__).parent.parent
MANIFEST, PAGE = ROOT / "weights_manifest.json", ROOT / "docs" / "models.md"
# The seven of the comparison come from one long command, which is a script.
LOSSES = "unetsep train --losses mse,mag_mse,mel_mse,l1,log_mse,mag_l1,perceptual"
SCRIPT = "sh recipes/losses.sh MUSDB18-7 SONGS POOLS runs/losses"
BEGIN, END = "<!-- cards: begin -->\n", "<!-- cards: end -->\n"


def scored(entry: Checkpoint, report: Any) -> Checkpoint:
    """The entry with its test scores, if the report has them."""
    for method in report["methods"]:
        if method["name"] != entry.name or method["kind"] != "model":
            continue
        found = {part: value for part, value in method["scores"]["SDR"].items() if value}
        scores = {
            "sdr": {stem: round(found[stem]["value"], 2) for stem in STEMS},
            "mean": round(found["mean"]["value"], 2),
            "interval95": {
                part: [round(value["low"], 2), round(value["high"], 2)]
                for part, value in found.items()
            },
            "metric": report["definition"],
            "data": report["data"],
            "command": f"unetsep eval --musdb-root MUSDB18-7 --model {entry.name}",
        }
        return dataclasses.replace(entry, scores=scores)
    return entry


def card(entry: Checkpoint, default: str) -> str:
    """One checkpoint in Markdown, from its manifest entry alone."""
    training, scores = entry.training, entry.scores
    settings, valid = training["settings"], training["valid_sdr"]
    parameters = sum(p.numel() for p in build(ModelConfig.from_dict(entry.config)).parameters())
    title = f"### `{entry.name}`" + (" (default)" if entry.name == default else "")
    rows = ["| SDR in dB | " + " | ".join(STEMS) + " | mean |", "|---|---|---|---|---|---|"]
    cells = [*(scores["sdr"][stem] for stem in STEMS), scores["mean"]]
    spans = [scores["interval95"][part] for part in (*STEMS, "mean")]
    shown = (f"{v:.2f} [{a:.2f}, {b:.2f}]" for v, (a, b) in zip(cells, spans, strict=True))
    rows.append(f"| test, 95% interval | {' | '.join(shown)} |")
    rows.append("| validation | " + " | ".join(f"{valid[p]:.2f}" for p in (*STEMS, "mean")) + " |")
    made = f"step {training['steps']} of {settings['max_steps']} (the best on the validation songs)"
    seed = f"seed {settings['seed']}"
    if "mean_of" in training:
        made, seed = f"mean of the weights of {training['mean_of']}", "a seed for each"
    command = SCRIPT if training["command"].startswith(LOSSES) else training["command"]
    facts = [
        f"{entry.description}",
        "",
        f"- Network: {parameters / 1e6:.2f} million parameters, {entry.bytes / 1e6:.1f} MB in half "
        "precision; signal path of `ModelConfig`'s defaults.",
        f"- Training: loss `{entry.loss}`, {made}, {settings['batch_size']} clips of 6 s a step, "
        f"learning rate {settings['learning_rate']:g}, {seed}, "
        f"{settings['precision']}"
        + (f"; begun with {training['begun_with']}." if "begun_with" in training else "."),
        f"- Data: {len(training['songs'])} songs and recordings, each named in "
        f"`weights_manifest.json`: {training['data']}.",
        f"- Licence of the weights: {entry.licence}.",
        f"- Command: `{command}`",
    ]
    return "\n".join([title, "", *facts, "", *rows, ""])


def section(manifest: Manifest) -> str:
    """The cards of all checkpoints between their marks."""
    cards = "\n".join(card(entry, manifest.default) for entry in manifest.checkpoints.values())
    return f"{BEGIN}\n{cards}\n{END}"


def main() -> None:
    """Update manifest and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, nargs="?")
    options = parser.parse_args()
    manifest = read_manifest(MANIFEST)
    if options.report is not None:
        report = json.loads(options.report.read_text(encoding="utf-8"))
        for entry in manifest.checkpoints.values():
            manifest = manifest.including(scored(entry, report))
        write_manifest(MANIFEST, manifest)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{section(manifest)}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
