"""Publishing, against a hub on loopback."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.synthetic import MODEL
from tests.web import serving
from unetsep.errors import WeightsError
from unetsep.network.unet import UNet
from unetsep.storage import shell_word
from unetsep.train.config import TrainingError
from unetsep.train.release.export import export
from unetsep.train.release.publish import model_card, publish
from unetsep.weights.manifest import Checkpoint, read_manifest

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as one upload needs; large files go through LFS."""

    files: dict[str, bytes]
    stored: dict[str, bytes]
    refuse: bool

    def log_message(self, *_: Any) -> None:
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def answer(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if "/resolve/" not in self.path:
            self.answer({"id": "org/net", "sha": COMMIT, "siblings": []})
            return
        content = self.files.get(self.path.rpartition("/")[2])
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    def do_PUT(self) -> None:
        content = self.body()
        self.stored[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_POST(self) -> None:
        base = f"http://127.0.0.1:{self.server.server_address[1]}"
        lines = [json.loads(line) for line in self.body().splitlines() if line]
        if self.refuse:
            self.answer({"error": "You don't have the rights"}, 403)
        elif self.path.endswith("/repos/create"):
            self.answer({"url": f"{base}/org/net"})
        elif "/preupload/" in self.path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in lines[0]["files"]
            ]
            self.answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{base}/lfs/{each['oid']}"}}}
                for each in lines[0]["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.stored[value["oid"]]
            url = f"{base}/org/net/commit/{COMMIT}"
            self.answer({"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})
        else:
            self.answer({})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("Handler", (Hub,), {"files": {}, "stored": {}, "refuse": False})
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with serving(handler) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield handler


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "run" / "export"
    folder.mkdir(parents=True)
    about = dict.fromkeys(("loss", "description", "repo_id", "revision"), "l1")
    scores = {"sdr": {"vocals": 1.0, "mean": 1.0}, "definition": "median"}
    entry = export(
        UNet(MODEL),
        folder / "net.safetensors",
        name="net",
        licence="CC BY-NC-SA 4.0",
        scores=scores,
        training={"data": ["caf\udce9"]},  # a folder whose name is no UTF-8
        **about,
    )
    (folder / "net.json").write_text(json.dumps(entry.__dict__))
    return tmp_path / "run"


# The hub's client hands its HTTP library a file.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_publishing_uploads_the_files_and_pins_their_revision(
    hub: type[Hub], run: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.json"
    assert publish(run, "org/net", manifest=manifest) == COMMIT
    assert hub.files["net.safetensors"] == (run / "export" / "net.safetensors").read_bytes()
    card = hub.files["README.md"].decode()
    assert "license: cc-by-nc-sa-4.0" in card
    assert "vocals 1.00" in card
    assert r"Trained on caf\udce9." in card
    entry = json.loads((run / "export" / "net.json").read_text("utf-8"))
    assert entry["training"]["data"] == ["caf\udce9"]
    assert (entry["repo_id"], entry["revision"]) == ("org/net", COMMIT)
    assert read_manifest(manifest).checkpoints["net"].revision == COMMIT


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_card_keeps_other_models_and_texts_of_people(hub: type[Hub], run: Path) -> None:
    theirs = (
        "---\nlicense:\n  - mit\ntags:\n- audio\n---\n\nOur models.\n\n"
        "## alpha\n\nOlder, licence of the weights MIT.\n\n## net\n\nWas worse.\n\n"
        "# Thanks\n\nTo all.\n"
    )
    hub.files["README.md"] = theirs.encode()
    publish(run, "org/net")
    card = hub.files["README.md"].decode()
    assert card.startswith(
        "---\nlicense: other\nlicense_name: mit-and-cc-by-nc-sa-4.0\ntags:\n- audio\n---\n\n"
        "Our models.\n\n## alpha\n\nOlder, licence of the weights MIT.\n\n# Thanks\n\nTo all.\n\n"
        "## net\n"
    )
    assert "Was worse" not in card
    assert card.count("## net\n") == 1
    publish(run, "org/net")
    assert hub.files["README.md"].decode() == card


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["CC BY-NC-SA 4.0"] * 2, "license: cc-by-nc-sa-4.0"),
        (["CC BY-SA 4.0", "MIT"], "license: other\nlicense_name: cc-by-sa-4.0-and-mit"),
        (
            ["CC BY-SA 4.0 (ask: us)"],
            "license: other\nlicense_name: cc-by-sa-4.0-ask-us",
        ),
    ],
)
def test_the_card_names_a_licence_that_the_hub_accepts(
    run: Path, licences: list[str], expected: str
) -> None:
    entry = Checkpoint(**json.loads((run / "export" / "net.json").read_text()))
    card = model_card([dataclasses.replace(entry, licence=licence) for licence in licences])
    assert card.startswith(f"---\n{expected}\nlibrary_name: unetsep\n---\n")


def test_a_refused_upload_gives_one_sentence_and_changes_nothing(
    hub: type[Hub], run: Path, tmp_path: Path
) -> None:
    hub.refuse = True
    before = (run / "export" / "net.json").read_text()
    with pytest.raises(WeightsError, match=r"^org/net could not be published: [^\n]+$"):
        publish(run, "org/net", manifest=tmp_path / "manifest.json")
    assert (run / "export" / "net.json").read_text() == before
    assert not (tmp_path / "manifest.json").exists()


def test_a_reason_that_an_error_and_its_cause_share_is_told_once(
    hub: type[Hub], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network\nat all") from OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fail)
    with pytest.raises(WeightsError, match=r"^org/net could not be published: no network$"):
        publish(run, "org/net")


def test_a_damaged_manifest_is_reported_before_any_upload(
    hub: type[Hub], run: Path, tmp_path: Path
) -> None:
    hub.refuse = True
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(WeightsError, match=r"manifest\.json is damaged"):
        publish(run, "org/net", manifest=tmp_path / "manifest.json")


def test_publishing_without_an_export_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    command = re.escape(f"run unetsep export {shell_word(folder)} ")
    with pytest.raises(TrainingError, match=f"nothing to publish: {command}"):
        publish(folder, "org/net")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("net.safetensors", b"junk", r"net\.safetensors was changed: .*: run unetsep export"),
        ("net.safetensors", None, r"net\.safetensors cannot be read .*: run unetsep export"),
        ("net.json", b"{", r"net\.json is not a manifest entry .*: run unetsep export"),
        (
            "net.json",
            b'{"name": "net"}',
            r"net\.json is not a manifest entry .*: run unetsep export",
        ),
        ("net.json", b"[]", r"net\.json is not a manifest entry"),
        ("other.json", b"copy", r"other\.json describes 'net\.safetensors', expected other"),
    ],
)
def test_files_changed_after_the_export_are_not_published(
    hub: type[Hub], run: Path, file: str, content: bytes | None, message: str
) -> None:
    path = run / "export" / file
    if content is None:
        path.unlink()
    elif content == b"copy":
        path.write_bytes((run / "export" / "net.json").read_bytes())
    else:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        publish(run, "org/net")
    assert hub.files == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"config": []},
        {"config": None},
        {"config": {"stems": 3}},
        {"config": {"guide": []}},
        {"aliases": None},
        {"aliases": {}},
        {"source": 3},
        {"scores": []},
        {"bytes": {}},
        {"training": []},
        {"training": {"songs": "x"}},
        {"training": {"songs": [1]}},
        {"training": {"songs": {"nope": {}}}},
    ],
    ids=str,
)
def test_an_entry_of_wrong_types_is_refused_before_any_upload(
    hub: type[Hub], run: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    path, manifest = run / "export" / "net.json", tmp_path / "manifest.json"
    entry = json.loads(path.read_text())
    config = entry["config"] | changed["config"] if changed.get("config") else None
    path.write_text(json.dumps(entry | changed | ({"config": config} if config else {})))
    with pytest.raises(
        TrainingError, match=r"net\.json is not a manifest entry .*: run unetsep export"
    ):
        publish(run, "org/net", manifest=manifest)
    assert hub.files == {}
    assert not manifest.exists()
