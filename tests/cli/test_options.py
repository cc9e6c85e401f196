"""The page of options agrees with what the options are for."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import Mock

import click
import pytest

from tests.commands import call
from unetsep import cli
from unetsep.audio.formats import BIT_DEPTHS, CONTAINERS
from unetsep.cli import CONTEXT, main
from unetsep.cli.evaluate import EvalOptions
from unetsep.cli.options.app import app
from unetsep.cli.options.evaluate import compare, evaluate
from unetsep.cli.options.models import import_spleeter
from unetsep.cli.options.separate import separate
from unetsep.cli.options.train import export, train
from unetsep.cli.other_tools import REMARKS, TRANSLATIONS
from unetsep.cli.parsing import build, expanded
from unetsep.cli.sections import SectionedCommand
from unetsep.cli.separate import SeparateOptions
from unetsep.cli.train import TrainOptions
from unetsep.dsp.passes import MAX_PASSES
from unetsep.network.devices import DEVICES, PRECISIONS
from unetsep.network.presets import NETWORKS
from unetsep.paths import FIELDS, TEMPLATE
from unetsep.separator import MASK_EXTENSIONS
from unetsep.spleeter.convert import BINS
from unetsep.train import config as training
from unetsep.train.config import EXTRA_BASS, EXTRA_SHARE, TrainConfig
from unetsep.train.data.datasets import DATASETS
from unetsep.train.data.musdb import SUBSETS
from unetsep.train.data.run_data import HELD_OUT
from unetsep.train.evaluation.baselines import BASELINES
from unetsep.train.evaluation.measures import BANDS, MEASURES
from unetsep.train.evaluation.scoring import METRICS, MODES
from unetsep.train.release.export import LICENCE
from unetsep.weights.manifest import manifest

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def parameter(command: click.Command, name: str) -> click.Parameter:
    return next(each for each in command.params if each.name == name)


@pytest.mark.parametrize(
    ("command", "name", "registry"),
    [
        (separate, "container", CONTAINERS),
        (separate, "bit_depth", BIT_DEPTHS),
        (separate, "device", DEVICES),
        (separate, "precision", PRECISIONS),
        (separate, "mask_extension", MASK_EXTENSIONS),
        (import_spleeter, "band", BINS),
        (evaluate, "device", DEVICES),
        (evaluate, "subset", SUBSETS),
        (evaluate, "metrics", MODES),
        (train, "network", NETWORKS),
        (train, "optimizer", training.OPTIMIZERS),
        (train, "schedule", training.SCHEDULES),
        (train, "precision", ("auto", *training.PRECISIONS)),
    ],
)
def test_choices_are_those_of_the_registry(
    command: click.Command, name: str, registry: Iterable[str]
) -> None:
    kind = parameter(command, name).type
    assert isinstance(kind, click.Choice)
    assert sorted(kind.choices) == sorted(registry)


@pytest.mark.parametrize("command", [separate, app, evaluate])
def test_a_device_may_be_one_of_several_gpus(command) -> None:
    kind = parameter(command, "device").type
    assert kind.convert("cuda:1", None, None) == "cuda:1"
    for other in ("cuda:", "cuda:x", "cpu:0"):
        with pytest.raises(click.BadParameter):
            kind.convert(other, None, None)


@pytest.mark.parametrize("command", [separate, evaluate])
def test_passes_go_up_to_the_maximum_of_a_separator(command) -> None:
    kind = parameter(command, "passes").type
    assert isinstance(kind, click.IntRange)
    assert (kind.min, kind.max) == (1, MAX_PASSES)


def test_each_kind_of_data_set_has_its_option() -> None:
    for kind in DATASETS.values():
        option = next(each for each in train.params if kind.option in each.opts)
        assert isinstance(option, click.Option)
        assert option.multiple == kind.repeated


def test_help_texts_name_the_real_defaults_and_choices() -> None:
    config = TrainConfig()
    shown = {
        "optimizer": config.optimizer,
        "muon_size": config.muon_size,
        "coherent_share": config.coherent_share,
        "gain_db": f"{config.gain_db:g}",
        "watched": config.watched,
        "held_out": HELD_OUT,
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup_steps,
        "schedule": config.schedule,
        "ema_decay": config.ema_decay,
        "own_share": config.own_share,
        "batch_size": config.batch_size,
        "clip_frames": config.clip_frames,
        "valid_every": config.valid_every,
        "seed": config.seed,
        "max_steps": f"{config.max_steps}; with --max-minutes none",
        "extra_share": f"{EXTRA_SHARE}, bass {EXTRA_BASS}",
        "cache_dir": "~/.cache/unetsep/stems",
        "workers": "1 on a CPU, at most 8 with a GPU",
    }
    for name, default in shown.items():
        option = parameter(train, name)
        assert isinstance(option, click.Option)
        assert f"[default: {default}]" in str(option.help)
    for command in (separate, evaluate):
        models = parameter(command, "models")
        assert isinstance(models, click.Option)
        assert f"[default: {manifest().default}]" in str(models.help)
    filename = parameter(separate, "filename")
    assert isinstance(filename, click.Option)
    assert f"[default: {TEMPLATE}]" in str(filename.help)
    assert all(f"{{{name}}}" in str(filename.help) for name in FIELDS)
    assert parameter(export, "licence").default == LICENCE
    assert parameter(compare, "metric").metavar == "|".join(METRICS)
    baselines = parameter(evaluate, "baselines")
    assert isinstance(baselines, click.Option)
    assert baselines.help == f"{', '.join(BASELINES)}; or none."
    measures = parameter(evaluate, "measures")
    assert isinstance(measures, click.Option)
    named = set(re.findall(r"[\w-]+", str(measures.help)))
    assert {"lsd" if name in BANDS else name for name in MEASURES} < named


def test_values_of_options_have_names_not_types() -> None:
    def all_options(command: click.Command) -> Iterator[click.Option]:
        yield from (each for each in command.params if isinstance(each, click.Option))
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            yield from all_options(inner)

    found = [each for each in all_options(main) if not each.is_flag]
    assert len(found) >= 100
    words = [each.make_metavar(click.Context(main)) for each in found]
    assert not {"INTEGER RANGE", "FLOAT RANGE", "INTEGER", "FLOAT", "TEXT"}.intersection(words)


def test_each_option_says_what_it_does() -> None:
    bare = [
        f"{command.name} {option.opts[-1]}"
        for command in every_command(main)
        for option in command.params
        if isinstance(option, click.Option) and not (option.help or "").split("[default")[0].strip()
    ]
    assert bare == []


def test_an_empty_path_is_refused_by_every_option_and_argument() -> None:
    paths = [
        (command, parameter)
        for command in every_command(main)
        for parameter in command.params
        if isinstance(parameter.type, click.Path)
    ]
    assert len(paths) >= 30
    for command, parameter in paths:
        empty = [""] if parameter.multiple else ""
        with pytest.raises(click.BadParameter, match="it must be a path, got ''"):
            parameter.type_cast_value(click.Context(command), empty)
    result = call("train", "--init-from", "")
    assert result.exit_code == 2
    assert "Invalid value for '--init-from': it must be a path, got ''" in result.stderr


def every_command(command: click.Command) -> Iterator[click.Command]:
    yield command
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        yield from every_command(child)


def field_names(kind: type) -> Iterator[str]:
    """Of a dataclass, and of the dataclasses that are its fields."""
    for name, hint in get_type_hints(kind).items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from field_names(hint)
        else:
            yield name


@pytest.mark.parametrize(
    ("command", "kind", "more"),
    [
        (separate, SeparateOptions, set()),
        (evaluate, EvalOptions, set()),
        (
            train,
            TrainOptions,
            {field.name for field in dataclasses.fields(TrainConfig)}
            | {kind.option.strip("-").replace("-", "_") for kind in DATASETS.values()},
        ),
    ],
)
def test_no_option_is_lost_on_its_way_to_the_dataclass(
    command: click.Command, kind: type, more: set[str]
) -> None:
    names = {parameter.name for parameter in command.params if parameter.expose_value}
    names -= {"instrumental"}  # becomes --without vocals
    assert len(names) >= 15
    assert names <= {*field_names(kind), *more}


def test_options_are_assigned_to_fields_by_name() -> None:
    @dataclasses.dataclass(frozen=True)
    class Inner:
        a: int
        both: str

    globals()["Inner"] = Inner  # type hints are looked up there

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner
        both: str
        b: float = 2.0

    values: dict[str, Any] = {"a": 1, "both": "x", "unknown": None}
    assert build(Outer, values) == Outer(Inner(1, "x"), "x")


def test_functions_of_the_command_line_are_short_and_take_few_parameters() -> None:
    paths = sorted(Path(str(cli.__file__)).parent.rglob("*.py"))
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    assert len(functions) >= 60
    for function in functions:
        given = function.args
        count = len(given.posonlyargs + given.args + given.kwonlyargs)
        assert count <= 6, function.name
        assert (function.end_lineno or 0) - function.lineno < 50, function.name


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("Track [12].wav", ["Track [12].wav"]),
        ("Ke$$ha 100%% $HOME.wav", ["Ke$$ha 100%% $HOME.wav"]),
        ("~song.wav", ["~song.wav"]),
        ("~/2.wav", [str(Path.home() / "2.wav")]),
        ("Album [2020]/*.wav", [str(Path("Album [2020]", name)) for name in ("1.wav", "2.wav")]),
        ("**/2.wav", [str(Path("Album [2020]", "2.wav"))]),
        ("Track ?.wav", ["Track 1.wav", "Track 2.wav"]),
        ("*.mp3", ["*.mp3"]),
        ("https://host/song.wav?part=[12]", ["https://host/song.wav?part=[12]"]),
    ],
)
def test_only_patterns_and_the_home_folder_are_expanded_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, names: list[str]
) -> None:
    (tmp_path / "Album [2020]").mkdir()
    for name in ("Track 1.wav", "Track 2.wav", "Album [2020]/1.wav", "Album [2020]/2.wav"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert list(map(Path, expanded([word]))) == list(map(Path, names))


def test_names_reach_a_command_unchanged_on_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = Mock()
    monkeypatch.setattr(sys, "argv", ["unetsep", "separate", "Ke$$ha.wav"])
    with monkeypatch.context() as patch:
        patch.setattr(cli, "main", words)
        steps = ("obey_signals", "reopen_closed", "write_utf8", "silence_matplotlib")
        for name in (*steps, "undo_all", "ignore_signals"):
            patch.setattr(cli, name, lambda: None)
        patch.setattr(cli, "leave", lambda _: None)
        patch.setattr(os, "name", "nt")
        with pytest.raises(SystemExit):
            cli.run()
    words.assert_called_once_with(["separate", "Ke$$ha.wav"])


def test_options_of_other_tools_are_refused_with_our_equivalent() -> None:
    assert len(TRANSLATIONS) >= 30
    ours = {name for option in separate.params for name in option.opts}
    for theirs, here in TRANSLATIONS.items():
        assert theirs not in ours
        assert set(re.findall(r"--[a-z-]+", here)) <= ours
        result = call("separate", "song.mp3", theirs, "x")
        assert result.exit_code == 2
        assert f"No such option '{theirs}'. Use {here} instead." in result.stderr
    for theirs, remark in REMARKS.items():
        assert theirs not in ours
        result = call("separate", "song.mp3", theirs, "x")
        assert (result.exit_code, result.stderr.split("'. ")[-1]) == (2, f"{remark}\n")


def test_all_options_of_another_tool_are_answered_at_once() -> None:
    words = "--two-stems=vocals --mp3 --mp3-bitrate=320 -d cpu -n htdemucs -j2 --mp3"
    stderr = call("separate", *words.split(), "song.mp3").stderr
    assert re.findall(r"No such option '(\S+)'", stderr) == ["--mp3", "--mp3-bitrate", "-n", "-j"]
    assert "leave it out" in stderr.lower()
    for words, cure in (("-d 600", "-d use --duration"), ("-f {filename}", "-f use --filename")):
        stderr = call("separate", *words.split(), "song.mp3").stderr
        assert stderr.endswith(f". For Spleeter's {cure}.\n")


def test_every_model_of_spleeter_has_an_equivalent() -> None:
    stderr = call("separate", "song.mp3", "-p", "spleeter:2stems").stderr
    for number in (2, 4, 5):
        assert f"spleeter-{number}stems" in stderr


def test_every_option_of_other_tools_that_a_page_translates_has_an_answer() -> None:
    ours = {name for option in separate.params for name in (*option.opts, *option.secondary_opts)}
    pages = [HOW_TO / f"from-{tool}.md" for tool in ("demucs", "spleeter", "others")]
    theirs = {
        option
        for page in pages
        for cell in re.findall(r"^\| (`-[^|]*) \|", page.read_text(encoding="utf-8"), re.M)
        for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", cell)
    }
    assert len(theirs) > 40
    assert theirs - ours <= {*TRANSLATIONS, *REMARKS}


def test_formats_may_be_written_in_upper_case() -> None:
    words = ["song.mp3", "-f", "FLAC"]
    assert separate.make_context("separate", words, **CONTEXT).params["container"] == "flac"


def test_the_list_of_commands_shortens_no_description() -> None:
    result = call("--help", terminal_width=80)
    assert len(main.commands) >= 12
    assert "..." not in result.stdout.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("command", "shared"),
    [
        (separate, {"--help"}),
        (train, {"--quiet", "--help"}),
        (evaluate, {"--help"}),
    ],
)
def test_each_option_of_long_commands_is_under_one_heading(
    command: SectionedCommand, shared: set[str]
) -> None:
    context = click.Context(command, info_name=command.name, **CONTEXT)
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    assert len(options) >= 25
    records = {max(each.opts, key=len): each.get_help_record(context) for each in options}
    sections = command.sectioned(context)
    assert list(sections) == [*command.sections.values()]
    assert [record for each in sections.values() for record in each] == [*records.values()]
    assert sections["Other options"] == [records[name] for name in records if name in shared]
    text = command.get_help(context)
    assert all(f"\n{heading}:\n" in text for heading in sections)
    assert all(text.count(f"{name} ") for name in records)
