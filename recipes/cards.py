"""Write scores of an evaluation into the manifest, and pages about each checkpoint.

    unetsep eval --musdb-root MUSDB18-7 --all-losses --model spleeter-vocals -o evaluation
    python recipes/cards.py evaluation/report.json

writes the scores of the bundled models, with their intervals, into weights_manifest.json. From
the manifest it writes a page for each model, the tables of models in README.md and
docs/start/which-model.md, and the models' lines in the navigation of zensical.toml. Without a
report the manifest stays as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown_pages import between, markdown_table

from unetsep.cli.models import TAKE
from unetsep.config import STEMS, ModelConfig
from unetsep.network.build import build
from unetsep.weights.manifest import Checkpoint, Manifest, read_manifest, write_manifest

ROOT = Path(__file__).parent.parent
MANIFEST, FOLDER = ROOT / "weights_manifest.json", ROOT / "docs/reference/models"
README, CHOICE, SITE = (
    ROOT / name for name in ("README.md", "docs/start/which-model.md", "zensical.toml")
)
# The seven of the comparison come from one long command, which is a script.
LOSSES = "unetsep train --losses mse,mag_mse,mel_mse,l1,log_mse,mag_l1,perceptual"
SCRIPT = "sh recipes/losses.sh MUSDB18-7 SONGS POOLS runs/losses"
# What a page of research says about a model; about the seven, the page that compares them.
RESEARCH = {
    "guided": ("default-model", "How it came about, and where it fails"),
    "fast": ("fast-model", "How it came about, and where it fails"),
    "open": ("open-model", "How it came about"),
    "spleeter-vocals": ("spleeter", "Spleeter beside our models"),
}
COMPARISON = ("losses", "The comparison of losses")
BEGIN, END = "models: begin", "models: end"
# The weights of newer models were chosen by means, as medians of few songs are noisy.
MEAN = """

Validation scores are means of songs instead, and do not compare with those of the test."""
PAGE = """# `{name}`{default}

**Take it** {take}.

{description}

{facts}

## Hear it

```bash
unetsep separate song.wav --model {name} --player -o out/
```

`make sounds` writes a page with the demo song by every bundled model, and with each model's error
([what losses do](../../understand/losses.md)).

## Scores

{scores}

SDR is that of BSS Eval v4: frames of 1 s, median of frames, median of songs. The test songs are
the 7-second excerpts of the 50 in MUSDB18 ([what SDR means](../../understand/sdr.md)).{validation}
`{scored}` reproduces the scores of the test songs.

## Made by

```bash
{command}
```
{settings}
{research}
"""


def with_scores(entry: Checkpoint, report: Any) -> Checkpoint:
    """The entry with its test scores, if the report has them."""
    for method in report["methods"]:
        if method["name"] != entry.name or method["kind"] != "model":
            continue
        by_part = {p: s for p, s in method["scores"]["SDR"].items() if s["value"] is not None}
        if not by_part.keys() >= set(STEMS):  # the mean of other stems compares with no other mean
            by_part.pop("mean", None)
        scores: dict[str, Any] = {
            "sdr": {part: round(by_part[part]["value"], 2) for part in by_part if part != "mean"}
        }
        if "mean" in by_part:
            scores["mean"] = round(by_part["mean"]["value"], 2)
        scores |= {
            "interval95": {
                part: [round(value["low"], 2), round(value["high"], 2)]
                for part, value in by_part.items()
            },
            "metric": report["definition"],
            "data": report["data"],
            "command": f"unetsep eval --musdb-root MUSDB18-7 --model {entry.name}",
        }
        return dataclasses.replace(entry, scores=scores)
    return entry


def page(entry: Checkpoint, manifest: Manifest) -> str:
    """The page of one checkpoint, only from its manifest entry."""
    training = entry.training
    file, title = RESEARCH.get(entry.name, COMPARISON)
    over = training["valid_over_songs"] if "valid_sdr" in training else None
    settings = (
        markdown_table(("setting", "value"), _settings(entry)) if "settings" in training else []
    )
    text = PAGE.format(
        name=entry.name,
        default=" (default)" if entry.name == manifest.default else "",
        take=TAKE[entry.name],
        description=entry.description,
        facts="\n".join(markdown_table(("what", "this model"), _facts(entry, manifest))),
        scores="\n".join(
            markdown_table(
                ("stem", "SDR in dB, test", "95% interval", f"validation, {over} of songs"),
                _scores(entry),
            )
        ),
        validation=MEAN if over == "mean" else "",
        scored=entry.scores["command"],
        command=SCRIPT if training["command"].startswith(LOSSES) else training["command"],
        settings="\n".join(["", *settings, ""]) if settings else "",
        research=f"[{title}](../../research/{file}.md) says more.",
    )
    return text.rstrip() + "\n"


def _facts(entry: Checkpoint, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Licence, size and data."""
    training = entry.training
    parameters = sum(p.numel() for p in build(ModelConfig.from_dict(entry.config)).parameters())
    yield "licence of the weights", entry.licence
    size = (
        f"{entry.bytes / 1e6:.1f} MB in half precision, {parameters / 1e6:.2f} million parameters"
    )
    whole = manifest.bytes_with_guide(entry)
    yield "size", size if whole == entry.bytes else f"{size}; {whole / 1e6:.1f} MB with its guide"
    if entry.aliases:
        yield "also called", ", ".join(f"`{name}`" for name in entry.aliases)
    if "guide" in training:
        yield "guide", training["guide"]
    if training["songs"]:
        note = "each named by `unetsep models --json`"
        yield "trained on", f"{len(training['songs'])} songs and recordings, {note}"
    yield "data", training["data"].replace("; see songs", "")


def _settings(entry: Checkpoint) -> Iterator[tuple[str, str]]:
    """How it was trained."""
    training, settings = entry.training, entry.training["settings"]
    yield "loss", f"`{entry.loss}`"
    if "mean_of" in training:
        yield "weights", f"the mean of those of {training['mean_of']}"
        yield "seed", "one for each"
    else:
        yield (
            "steps",
            f"{training['steps']} (the best on the validation songs)",
        )
        yield "seed", f"{settings['seed']}"
    if "begun_with" in training:
        yield "initial weights", training["begun_with"]
    phases = [phase["what"] for phase in training.get("phases", ())]
    if "low_band" in training:
        phases.insert(0, f"the branch for low bins alone, {training['low_band']['steps']} steps")
    for number, phase in enumerate(phases, 2):
        yield f"phase {number}", phase
    yield "clips a step", f"{settings['batch_size']}, each of 6 s"
    yield "learning rate", f"{settings['learning_rate']:g}"
    yield "precision", settings["precision"]


def _scores(entry: Checkpoint) -> Iterator[tuple[str, ...]]:
    """A row for each stem."""
    scores, valid = entry.scores, entry.training.get("valid_sdr", {})
    values = scores["sdr"] | ({"mean": scores["mean"]} if "mean" in scores else {})
    for part, value in values.items():
        low, high = scores["interval95"][part]
        yield (
            part,
            f"{value:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{valid[part]:.2f}" if valid else "",
        )


def readme_table(manifest: Manifest) -> list[str]:
    """All models with scores and licence, for README.md."""
    rows = (
        (_name(entry, manifest), *_values(entry), entry.licence.partition(",")[0].partition(";")[0])
        for entry in manifest.checkpoints.values()
    )
    return markdown_table(("model", *STEMS, "mean", "licence"), rows)


def choice_table(manifest: Manifest) -> list[str]:
    """All models with a sentence each, for the page that helps to choose."""
    rows = (
        (
            f"[`{entry.name}`](../reference/models/{entry.name}.md)",
            TAKE[entry.name],
            f"{entry.scores['mean']:.2f}" if "mean" in entry.scores else "",
            f"{manifest.bytes_with_guide(entry) / 1e6:.1f} MB",
        )
        for entry in manifest.checkpoints.values()
    )
    return markdown_table(("model", "take it ...", "mean SDR", "size"), rows)


def _name(entry: Checkpoint, manifest: Manifest) -> str:
    return f"`{entry.name}`" + (" (default)" if entry.name == manifest.default else "")


def _values(entry: Checkpoint) -> Iterator[str]:
    """Its test scores by stem, then the mean; nothing where there is none."""
    for value in (*map(entry.scores["sdr"].get, STEMS), entry.scores.get("mean")):
        yield "" if value is None else f"{value:.2f}"


def navigation(manifest: Manifest) -> list[str]:
    """A line for each model's page."""
    return [f'      "reference/models/{name}.md",' for name in manifest.checkpoints]


def pages(manifest: Manifest) -> dict[Path, str]:
    """Every file that shows what the manifest says, with its text."""
    missing = [name for name in manifest.checkpoints if name not in TAKE]
    if missing:
        raise SystemExit(f"recipes/cards.py does not say who should take {', '.join(missing)}")
    comments, lines = (
        (f"<!-- {BEGIN} -->", f"<!-- {END} -->"),
        (f"      # {BEGIN}", f"      # {END}"),
    )
    return {FOLDER / f"{e.name}.md": page(e, manifest) for e in manifest.checkpoints.values()} | {
        README: between(README, comments, ["", *readme_table(manifest), ""]),
        CHOICE: between(CHOICE, comments, ["", *choice_table(manifest), ""]),
        SITE: between(SITE, lines, navigation(manifest)),
    }


def refuse_other_songs(parser: argparse.ArgumentParser, path: Path, data: str) -> None:
    """End with an error unless a report is of what the pages say its scores are of.

    ``unetsep eval --subset valid`` writes a report of the same name.
    """
    if not data.startswith("50 test tracks of "):
        parser.error(f"{path} is of {data}: the pages say 50 test songs")


def main() -> None:
    """Update manifest and pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, nargs="?")
    options = parser.parse_args()
    manifest = read_manifest(MANIFEST)
    if options.report is not None:
        report = json.loads(options.report.read_text(encoding="utf-8"))
        refuse_other_songs(parser, options.report, report["data"])
        if report["metrics"] != "sdr":
            parser.error(f"{options.report} has {report['metrics']}: eval with --metrics sdr")
        for entry in manifest.checkpoints.values():
            manifest = manifest.including(with_scores(entry, report))
        write_manifest(MANIFEST, manifest)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in pages(manifest).items():
        path.write_text(text, encoding="utf-8")
    for path in FOLDER.glob("*.md"):
        if path.stem not in manifest.checkpoints:
            path.unlink()


if __name__ == "__main__":
    main()
