"""Scores of an evaluation into the manifest, and a card for each checkpoint.

    unetsep eval --musdb-root MUSDB18-7 --all-losses -o evaluation
    python recipes/cards.py evaluation/report.json

writes the scores of the bundled models, with their intervals, into weights_manifest.json, and
what the manifest says about each checkpoint between two marks in docs/research/models.md. Without
a report the manifest stays as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from unetsep.config import ModelConfig
from unetsep.network.build import build
from unetsep.weights.manifest import Checkpoint, Manifest, read_manifest, write_manifest

ROOT = Path(__file__).parent.parent
MANIFEST, PAGE = ROOT / "weights_manifest.json", ROOT / "docs/research/models.md"
# The seven of the comparison come from one long command, which is a script.
LOSSES = "unetsep train --losses mse,mag_mse,mel_mse,l1,log_mse,mag_l1,perceptual"
SCRIPT = "sh recipes/losses.sh MUSDB18-7 SONGS POOLS runs/losses"
BEGIN, END = "<!-- cards: begin -->\n", "<!-- cards: end -->\n"


def scored(entry: Checkpoint, report: Any) -> Checkpoint:
    """The entry with its test scores, if the report has them."""
    for method in report["methods"]:
        if method["name"] != entry.name or method["kind"] != "model":
            continue
        found = {p: s for p, s in method["scores"]["SDR"].items() if s["value"] is not None}
        scores: dict[str, Any] = {
            "sdr": {part: round(found[part]["value"], 2) for part in found if part != "mean"}
        }
        if "mean" in found:
            scores["mean"] = round(found["mean"]["value"], 2)
        scores |= {
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
    training = entry.training
    parameters = sum(p.numel() for p in build(ModelConfig.from_dict(entry.config)).parameters())
    title = f"### `{entry.name}`" + (" (default)" if entry.name == default else "")
    aliases = ", ".join(f"`{name}`" for name in entry.aliases)
    command = SCRIPT if training["command"].startswith(LOSSES) else training["command"]
    count = f"{len(training['songs'])} songs and recordings, each named in the manifest: "
    facts = [
        f"{entry.description}" + (f" Also called {aliases}." if aliases else ""),
        "",
        f"- Network: {parameters / 1e6:.2f} million parameters, {entry.bytes / 1e6:.1f} MB in half "
        "precision.",
        *([f"- Guide: {training['guide']}."] if "guide" in training else []),
        *([f"- Training: {_training(entry)}"] if "settings" in training else []),
        f"- Data: {count if training['songs'] else ''}{training['data']}.",
        f"- Licence of the weights: {entry.licence}.",
        f"- Command: `{command}`",
    ]
    return "\n".join([title, "", *facts, "", *_scores(entry), ""])


def _training(entry: Checkpoint) -> str:
    """Loss, steps and settings in one sentence."""
    training, settings = entry.training, entry.training["settings"]
    made = f"step {training['steps']} of {settings['max_steps']} (the best on the validation songs)"
    seed = f"seed {settings['seed']}"
    if "mean_of" in training:
        made, seed = f"mean of the weights of {training['mean_of']}", "a seed for each"
    begun = f"; begun with {training['begun_with']}." if "begun_with" in training else "."
    return (
        f"loss `{entry.loss}`, {made}, {settings['batch_size']} clips of 6 s a step, learning rate "
        f"{settings['learning_rate']:g}, {seed}, {settings['precision']}{begun}"
    )


def _scores(entry: Checkpoint) -> list[str]:
    """Table of the scores, a column for each stem."""
    scores, valid = entry.scores, entry.training.get("valid_sdr", {})
    values = scores["sdr"] | ({"mean": scores["mean"]} if "mean" in scores else {})
    spans = scores["interval95"]
    shown = [f"{v:.2f} [{spans[p][0]:.2f}, {spans[p][1]:.2f}]" for p, v in values.items()]
    rows = [
        f"| SDR in dB | {' | '.join(values)} |",
        "|---" * (len(values) + 1) + "|",
        f"| test, 95% interval | {' | '.join(shown)} |",
    ]
    if valid:
        rows.append(f"| validation | {' | '.join(f'{valid[part]:.2f}' for part in values)} |")
    return rows


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
