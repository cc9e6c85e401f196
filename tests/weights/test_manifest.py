from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import open_data
import pytest

from unetsep.cli.models import ModelChoice, print_models
from unetsep.config import ModelConfig
from unetsep.errors import WeightsError
from unetsep.weights import manifest as manifests
from unetsep.weights.datasets import DataSet
from unetsep.weights.load import load_network
from unetsep.weights.manifest import (
    Checkpoint,
    add_to_manifest,
    add_user_model,
    list_models,
    read_manifest,
    write_manifest,
)


def entry(name: str, songs: list[str], **fields: str) -> Checkpoint:
    training = {"songs": songs, "valid_songs": ["musdb/valid/V"], "steps": 1}
    about = dict.fromkeys(("loss", "description", "repo_id", "revision"), "") | fields
    file = f"{name}.safetensors"
    return Checkpoint(name, file=file, sha256="", bytes=1, config={}, licence="x",
                      training=training, **about)  # fmt: skip


def test_published_checkpoints_are_what_the_manifest_says() -> None:
    entries = list_models()
    assert manifests.manifest().default in {entry.name for entry in entries}
    for entry in entries:
        content = (manifests.BUNDLED / entry.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.sha256
        assert len(content) == entry.bytes
        network = load_network(entry.name)
        assert network.config == ModelConfig.from_dict(entry.config)
        assert entry.licence
        assert entry.training
        assert set(entry.scores["sdr"]) >= set(network.config.stems)
        if network.config.guide:
            assert entry.config["guide"] in {each.sha256 for each in entries}


def test_bundled_checkpoints_stay_small_and_nothing_else_is_bundled() -> None:
    files = {path.name: path.stat().st_size for path in manifests.BUNDLED.glob("*.safetensors")}
    assert set(files) == {entry.file for entry in list_models()}
    # What an index of packages takes is 100 MB a file; the default and its guide 26 MB.
    assert sum(files.values()) <= 90e6
    default = manifests.find_checkpoint(manifests.model_name("default"))
    guide = next(e for e in list_models() if e.sha256 == default.config["guide"])
    assert default.bytes + guide.bytes <= 26e6


def test_no_checkpoint_was_trained_on_a_test_song() -> None:
    guides = manifests.manifest().guides
    # Of Spleeter's private songs nobody knows.
    assert guides == {"spleeter-vocals"}
    ours = [entry for entry in list_models() if entry.name not in guides]
    assert len(ours) >= 9
    for entry in ours:
        assert entry.training["splits"] == ["train"]
        assert len(entry.training["songs"]) >= 100
        assert not any("test/" in song for song in entry.training["songs"])


def test_the_open_model_was_trained_on_open_licences_alone() -> None:
    entry = manifests.find_checkpoint("open")
    assert entry.licence.startswith("CC BY-SA 4.0")
    pools = [f"pools/train/{pattern}" for pattern in open_data.POOLS]
    named = [f"songs/train/{name}" for name in open_data.SONGS]
    # Rendered from MIDI files, with sounds, under open licences.
    midi = [f"midi/{kind}{{name}}[-_]*" for kind in ("songs/", "singles/*/")]
    collections = ("freedoom", "tannerhelland", "groove-midi")
    rendered = [each.format(name=name) for each in midi for name in collections]
    patterns = [*pools, *named, *rendered]
    for song in entry.training["songs"]:
        assert any(fnmatch.fnmatchcase(song, pattern) for pattern in patterns), song
    assert all(song.startswith("musdb/valid/") for song in entry.training["valid_songs"])


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.pt"]
)
def test_manifest_file_names_that_are_paths_are_refused(
    name: str, publish: Callable[..., None]
) -> None:
    publish(file=name)
    with pytest.raises(WeightsError, match="not a plain file name"):
        load_network("small")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"default": 1, "checkpoints": [{"a": 1}]}'])
def test_a_damaged_manifest_is_reported(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights_manifest.json"
    path.write_text(text)
    monkeypatch.setattr(manifests, "MANIFESTS", (path,))
    manifests.manifest.cache_clear()
    with pytest.raises(WeightsError, match=r"damaged \(.*\): install unetsep again"):
        manifests.manifest()


SOUND = {
    "name": "mine", "loss": "", "description": "", "file": "mine.safetensors", "repo_id": "",
    "revision": "", "sha256": "0", "bytes": 1, "config": {}, "licence": "x",
    "scores": {"sdr": {"vocals": 7, "bass": 6.5}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bytes": "abc"}, "bytes of model 'mine' is 'abc', expected a whole number"),
        ({"bytes": True}, "bytes of model 'mine' is True"),
        ({"bytes": 10**400}, "bytes of model 'mine' is 10+, expected a whole number"),
        ({"name": 5}, "name of model 5 is 5, expected a text"),
        ({"file": 5}, "file of model 'mine' is 5"),
        ({"sha256": None}, "sha256 of model 'mine' is None"),
        ({"config": None}, "config of model 'mine' is None, expected an object"),
        ({"config": {"stems": [1]}}, "one of config.stems of model 'mine' is 1"),
        ({"config": {"guide": []}}, "config.guide of model 'mine'"),
        ({"scores": []}, r"scores of model 'mine' is \[\]"),
        ({"scores": {"sdr": {"vocals": "x"}}}, "scores.sdr.vocals of model 'mine' is 'x'"),
        ({"scores": {"sdr": {"vocals": -(10**400)}}}, "scores.sdr.vocals of model 'mine' is -10+"),
        ({"scores": {"sdr": {"vocals": math.nan}}}, "scores.sdr.vocals of model 'mine' is nan"),
        ({"source": "x"}, "source of model 'mine' is 'x'"),
        ({"aliases": "abc"}, "aliases of model 'mine' is 'abc', expected a list"),
        ({"training": {"songs": 5}}, "training.songs of model 'mine' is 5"),
        ({"training": {"valid_songs": [{}]}}, "one of training.valid_songs of model 'mine'"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_a_field_of_a_wrong_type_is_named(
    changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "models.json"
    content = {"default": "", "datasets": {}, "checkpoints": [SOUND]}
    path.write_text(json.dumps(content))
    assert read_manifest(path).checkpoints["mine"].bytes == 1
    path.write_text(json.dumps(content | {"checkpoints": [SOUND | changes]}))
    with pytest.raises(WeightsError, match=rf"models\.json is damaged \({named}"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"default": 1, "checkpoints": []}, "default is 1"),
        ({"default": "", "checkpoints": {}}, "checkpoints is {}, expected a list"),
        ({"default": "", "checkpoints": ["x"]}, "one of checkpoints is 'x'"),
        ({"default": "", "checkpoints": [{}]}, "'name' is missing"),
        ({"default": "", "checkpoints": [], "datasets": []}, "datasets is"),
        (
            {"default": "", "checkpoints": [], "datasets": {"a": {"songs": "abc"}}},
            "songs of data set 'a' is 'abc'",
        ),
        ([], "the whole is"),
    ],
    ids=lambda value: str(value) if not isinstance(value, str) else "",
)
def test_a_manifest_of_another_form_counts_as_damage(
    content: object, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "models.json"
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=rf"models\.json is damaged \({named}"):
        read_manifest(path)


def test_a_manifest_of_a_newer_version_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"default": "", "checkpoints": [SOUND | {"colour": "red"}]}))
    message = r"was written by a newer unetsep \(unknown field 'colour' of model .*\): update it"
    with pytest.raises(WeightsError, match=message):
        read_manifest(path)


def test_a_deeply_nested_manifest_counts_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    path.write_text("[" * 200_000)
    with pytest.raises(WeightsError, match="is damaged"):
        read_manifest(path)


def test_models_without_stems_and_scores_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a manifest may leave out."""
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"default": "", "checkpoints": [SOUND]}))
    print_models(read_manifest(path))
    assert SOUND["name"] in capsys.readouterr().out


def test_a_missing_manifest_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MANIFESTS", (tmp_path / "x",))
    manifests.manifest.cache_clear()
    with pytest.raises(WeightsError, match="missing from this installation"):
        manifests.manifest()


def test_songs_are_stored_once_and_loaded_for_each_checkpoint(
    tmp_path: Path,
) -> None:
    path = tmp_path / "manifest.json"
    entries = [
        entry("all", ["musdb/train/A - B/C", "musdb/train/D", "pools/train/bass/E"]),
        entry("some", ["musdb/train/D", "pools/train/bass/E"]),
        entry("disordered", ["musdb/train/D", "musdb/train/A - B/C"]),
        entry("plain", ["a song"]),
    ]
    for each in entries:
        add_to_manifest(path, each)
    content = json.loads(path.read_text())
    assert list(content["datasets"]["musdb/train"]["songs"]) == ["A - B/C", "D"]
    written = [each["training"]["songs"] for each in content["checkpoints"]]
    assert written == [
        {"musdb/train": {}, "pools/train": {}},
        {"musdb/train": {"left_out": ["A - B/C"]}, "pools/train": {}},
        ["musdb/train/D", "musdb/train/A - B/C"],
        ["a song"],
    ]
    found = read_manifest(path)
    assert found.default == "all"
    assert list(found.checkpoints.values()) == entries


def test_adding_a_checkpoint_keeps_licence_and_note_of_its_data(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    add_to_manifest(path, entry("one", ["musdb/train/A"]))
    content = json.loads(path.read_text())
    content["datasets"]["musdb/train"] |= {"licence": "CC0", "note": "A song."}
    path.write_text(json.dumps(content))
    add_to_manifest(path, entry("one", ["musdb/train/B"], description="better"))
    add_to_manifest(path, entry("two", ["musdb/train/A", "musdb/train/B"]))
    found = read_manifest(path)
    assert found.datasets["musdb/train"] == DataSet("CC0", "A song.", ("B", "A"))
    assert list(found.checkpoints) == ["one", "two"]
    assert found.checkpoints["one"].description == "better"


def test_a_reference_to_unlisted_data_counts_as_damage(publish: Callable[..., None]) -> None:
    publish(training={"songs": {"nowhere/train": {}}})
    with pytest.raises(WeightsError, match=r"damaged .*nowhere/train"):
        manifests.manifest()


def test_writing_the_published_manifest_changes_nothing(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.json", manifests.manifest())
    (path,) = (path for path in manifests.MANIFESTS if path.is_file())
    assert (tmp_path / "manifest.json").read_text() == path.read_text()
    for dataset in manifests.manifest().datasets.values():
        assert dataset.licence
        assert dataset.note


@pytest.mark.parametrize("width", [1, 40, 1000])
def test_the_text_of_a_manifest_is_json(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "WIDTH", width)
    value = {"a": [1, 2.5, None, True], "b": {"é": [], "d": {}}, "c": [[1], {"e": "\n"}]}
    text = manifests.format_json(value)
    assert json.loads(text) == value
    assert "é" in text


def test_a_user_model_is_added_completely_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    mine = dataclasses.replace(entry("mine", []), source={"kind": "test"})
    add_user_model(mine, b"one")
    add_user_model(dataclasses.replace(mine, name="other", file="other.safetensors"), b"two")
    assert list(manifests.user_models().checkpoints) == ["mine", "other"]
    assert manifests.all_models().default == manifests.manifest().default
    assert mine.path.read_bytes() == b"one"
    before = sorted(tmp_path.iterdir())
    (tmp_path / "third.safetensors").mkdir()  # in the way
    third = dataclasses.replace(mine, name="third", file="third.safetensors")
    with pytest.raises(WeightsError, match="that is not of any model"):
        add_user_model(third, b"three")
    with pytest.raises(WeightsError, match="cannot be written"):
        add_user_model(third, b"three", overwrite=True)
    (tmp_path / "third.safetensors").rmdir()
    assert sorted(tmp_path.iterdir()) == before
    assert list(manifests.user_models().checkpoints) == ["mine", "other"]


@pytest.mark.parametrize("add", [add_to_manifest, lambda _, entry: add_user_model(entry, b"x")])
def test_models_added_by_another_process_are_not_lost(
    add: Callable[[Path, Checkpoint], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    path = tmp_path / manifests.USER_MANIFEST
    one, other = (dataclasses.replace(entry(n, []), source={"kind": "x"}) for n in ("one", "other"))

    @contextmanager
    def locked(wanted: Path) -> Iterator[None]:
        assert wanted == path
        write_manifest(path, manifests.Manifest().including(other))  # who had it before
        yield
        assert set(read_manifest(path).checkpoints) == {"one", "other"}

    monkeypatch.setattr(manifests, "locked", locked)
    add(path, one)
    assert set(read_manifest(path).checkpoints) == {"one", "other"}


@pytest.mark.parametrize("name", ["small", "petite"])
def test_a_published_name_or_alias_hides_an_imported_model(
    name: str, publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    for each in (name, "mine"):
        add_user_model(dataclasses.replace(entry(each, []), source={"kind": "test"}), b"x")
    publish(aliases=["petite"])  # later than the import
    assert manifests.find_checkpoint(name).name == "small"
    assert [(each.name, bool(each.source)) for each in list_models()] == [
        ("small", False),
        ("mine", True),
    ]


def test_a_model_is_found_by_its_aliases() -> None:
    assert manifests.model_name("mse-long") == "fast"
    assert manifests.model_name(Path("default")) == "default"  # a file of the name
    assert manifests.find_checkpoint("mse-long") == manifests.find_checkpoint("fast")
    assert load_network("mse-long").config == load_network("fast").config


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "a/b", "a b", "a" * 65, "a.safetensors", "default"]
)
def test_a_name_that_no_model_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"name {name!r}: "):
        manifests.check_name(name)
    manifests.check_name("A" * 64)
    manifests.check_name("0.b_c-d")


def test_a_suffix_or_a_folder_makes_a_path_of_a_name() -> None:
    paths = ("fast.safetensors", "runs/fast", "runs\\fast", Path("fast"))
    assert all(map(manifests.is_path, paths))
    assert not manifests.is_path("fast")


def test_the_path_of_a_model_may_hold_commas(tmp_path: Path) -> None:
    path = tmp_path / "a, b.safetensors"
    path.touch()
    assert ModelChoice(models=(str(path), "fast,mse")).groups() == [[str(path)], ["fast"], ["mse"]]


def test_files_of_several_runs_with_one_name_are_averaged() -> None:
    files = ("a/best-mse.safetensors", "b/best-mse.safetensors")
    assert ModelChoice(models=files, average=True).groups() == [list(files)]
    with pytest.raises(ValueError, match="two models are called best-mse: expected"):
        ModelChoice(models=files).groups()
    with pytest.raises(ValueError, match=",,': expected names"):
        ModelChoice(models=(*files, ","), average=True).groups()
    with pytest.raises(ValueError, match="two models are called fast: "):
        ModelChoice(models=("fast,mse-long",), average=True).groups()


def test_all_losses_omits_models_that_only_guide() -> None:
    (names,) = ModelChoice(average=True, all_losses=True).groups()
    assert "spleeter-vocals" not in names
    assert {"guided", "fast", "mse", "perceptual"} <= set(names)
    assert len(names) == 10
