from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands import call
from unetsep.cli import models as manage
from unetsep.cli.models import TAKE, print_models
from unetsep.errors import WeightsError
from unetsep.weights import hub
from unetsep.weights import manifest as manifests
from unetsep.weights.load import load_network
from unetsep.weights.manifest import Checkpoint, all_models


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A published model that is not bundled, and the path it has in the hub's cache."""
    path = tmp_path / "remote.safetensors"
    digest = hashlib.sha256(b"weights").hexdigest()
    entry = Checkpoint("remote", "mse", "", path.name, "org/name", "v1", digest, 7, {}, "x")
    monkeypatch.setattr(manage, "list_models", lambda: [*manifests.list_models(), entry])
    monkeypatch.setattr(hub, "cached_file", lambda _: path if path.is_file() else None)

    def fetch(_: Checkpoint) -> Path:
        path.write_bytes(b"weights")
        return path

    monkeypatch.setattr(hub, "fetch", fetch)
    return path


def refuse(monkeypatch: pytest.MonkeyPatch, method: str, path: Path) -> None:
    """Let a method of a path fail as on a file system that is mounted read-only."""
    usual = getattr(Path, method)

    def fail(self: Path, *args: Any, **options: Any) -> Any:
        if self == path:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return usual(self, *args, **options)

    monkeypatch.setattr(Path, method, fail)


def verify() -> tuple[list[str], bool]:
    """What ``unetsep models verify`` prints, and whether it finds nothing damaged."""
    result = call("models", "verify")
    return result.output.splitlines(), result.exit_code == 0


def test_download_fetches_what_is_not_bundled(remote: Path) -> None:
    lines = list(manage.download([], everything=True))
    assert lines[-1] == f"remote: {remote}"
    assert remote.read_bytes() == b"weights"
    assert len(lines) == len(manifests.list_models()) + 1


def test_download_takes_either_names_or_all() -> None:
    with pytest.raises(ValueError, match="--all: got neither"):
        list(manage.download([]))
    with pytest.raises(ValueError, match="--all: got both"):
        list(manage.download(["mse"], everything=True))


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one"):
        list(
            manage.download(["spleeter-2stems"], source=Path("a.zip"), address="http://host/a.zip")
        )
    with pytest.raises(ValueError, match="choose one"):
        manage.run_models(as_json=True, cache_dir=True)


@pytest.mark.parametrize("option", ["--json", "--cache-dir"])
@pytest.mark.parametrize("command", [["download", "fast"], ["verify"]])
def test_an_option_before_a_subcommand_is_refused(option: str, command: list[str]) -> None:
    result = call("models", option, *command)
    assert result.exit_code == 1
    assert f"{option} is an option of models alone" in result.output
    assert "fast" not in result.output


def test_download_refuses_unknown_names() -> None:
    with pytest.raises(WeightsError, match="no model 'x'"):
        list(manage.download(["x"]))


def test_download_takes_the_names_that_other_commands_take() -> None:
    guided, fast = map(manifests.find_checkpoint, ("guided", "fast"))
    lines = list(manage.download(["default", "mse-long"]))
    assert lines == [f"guided: {guided.path}", f"fast: {fast.path}"]
    with pytest.raises(WeightsError, match="no model 'x/fast'"):
        list(manage.download(["x/fast"]))


def test_download_lists_each_name_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    mine = dataclasses.replace(
        manifests.list_models()[0], name="spleeter-2stems", source={"kind": "spleeter"}
    )
    manifests.add_user_model(mine, b"")
    with pytest.raises(WeightsError) as told:
        list(manage.download(["x"]))
    assert str(told.value).count("spleeter-2stems") == 1


def test_verify_reports_intact_models_and_those_not_downloaded(remote: Path) -> None:
    lines, intact = verify()
    assert intact
    assert lines[-1] == "remote: not downloaded"
    assert all(line.endswith("intact") for line in lines[:-1])


def test_an_invalid_repository_affects_only_its_own_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    mine = {**dataclasses.asdict(manifests.list_models()[0]), "name": "mine", "repo_id": ""}
    mine["file"] = "mine.safetensors"
    (tmp_path / "models.json").write_text(json.dumps({"default": "", "checkpoints": [mine]}))
    lines, _ = verify()
    assert len(lines) > 5
    assert "mine: not downloaded" in lines
    with pytest.raises(WeightsError, match="mine"):
        list(manage.download(["mine"]))


def test_verify_deletes_a_damaged_download(remote: Path) -> None:
    remote.write_bytes(b"wights")
    lines, intact = verify()
    assert not intact
    assert lines[-1] == "remote: damaged, deleted from the cache"
    assert not remote.exists()


@pytest.mark.parametrize(
    ("method", "said"),
    [("unlink", "damaged, and could not be deleted"), ("open", "cannot be read")],
)
def test_verify_continues_after_a_file_that_it_cannot_read_or_delete(
    remote: Path, monkeypatch: pytest.MonkeyPatch, method: str, said: str
) -> None:
    remote.write_bytes(b"wights")
    refuse(monkeypatch, method, remote)
    entries = manage.list_models()
    monkeypatch.setattr(manage, "list_models", lambda: entries[::-1])
    result = call("models", "verify")
    assert result.exit_code == 1
    first, *others = result.output.splitlines()
    assert first == f"remote: {said}: Read-only file system ({remote})"
    assert len(others) == len(entries) - 1
    assert all(line.endswith("intact") for line in others)


def test_a_damaged_download_in_a_read_only_cache_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = manifests.find_checkpoint("mse")
    path = tmp_path / entry.file
    path.write_bytes(b"damaged")
    monkeypatch.setattr(manifests, "BUNDLED", tmp_path / "nothing here")
    monkeypatch.setattr(hub, "cached_file", lambda _: path)
    refuse(monkeypatch, "unlink", path)
    with pytest.raises(WeightsError) as told:
        load_network("mse")
    assert "was damaged or replaced" in str(told.value)
    assert f"it could not be deleted: Read-only file system ({path}); delete it" in str(told.value)


def test_verify_reports_a_damaged_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(manifests.list_models()[0], sha256="0" * 64)
    monkeypatch.setattr(manage, "list_models", lambda: [entry])
    (line,), intact = verify()
    assert not intact
    assert "install unetsep again" in line
    assert entry.path.is_file()


def test_the_commands_print_their_results(remote: Path) -> None:
    assert "remote: " in call("models", "download", "remote").output
    assert "remote: intact" in call("models", "verify").output
    remote.write_bytes(b"x")
    assert call("models", "verify").exit_code == 1
    assert str(hub.cache_folder()) in call("models", "--cache-dir").output


def test_a_published_model_that_is_not_bundled_loads_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = manifests.find_checkpoint("mse")
    moved = tmp_path / first.file
    moved.write_bytes(first.path.read_bytes())
    monkeypatch.setattr(manifests, "BUNDLED", tmp_path / "nothing here")
    monkeypatch.setattr(hub, "cached_file", lambda entry: tmp_path / entry.file)
    assert load_network(first.name).config == load_network(moved).config


def test_json_lists_each_data_set_once() -> None:
    content = json.loads(call("models", "--json").stdout)
    (default,) = (each for each in content["models"] if each["name"] == content["default"])
    assert default["bundled"]
    songs = default["training"]["songs"]
    assert len(songs) >= 3
    assert sum(len(content["datasets"][name]["songs"]) for name in songs) >= 100


@pytest.mark.parametrize("width", [40, 80, 120])
def test_models_are_readable_at_any_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    known = all_models()
    print_models(known)
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    text = " ".join(" ".join(lines).split())
    bundled = [entry for entry in known.checkpoints.values() if entry.bundled]
    assert len(bundled) >= 10
    for entry in bundled:
        assert entry.name in TAKE
        assert entry.name in text
        if width < 100:  # in a list nothing stands beside it
            assert f"take it: {TAKE[entry.name]} SDR" in text
    assert f"{known.default} (default)" in text


def test_the_size_of_a_model_includes_its_guide(capsys: pytest.CaptureFixture[str]) -> None:
    guided, guide, fast = map(manifests.find_checkpoint, ("guided", "spleeter-vocals", "fast"))
    print_models(all_models())
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    for entry, size in ((guided, guided.bytes + guide.bytes), (fast, fast.bytes)):
        assert f" {size / 1e6:.1f} MB " in lines[entry.name]
