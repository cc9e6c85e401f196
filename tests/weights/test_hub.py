"""The real client against a server on loopback; in subprocesses, as it reads its settings once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.weights.fake_hub import CONTENT, fake_hub
from unetsep.storage import FULL
from unetsep.weights import hub
from unetsep.weights.hub import _is_of_storage

SCRIPT = """
import json, os, sys, time
import huggingface_hub
from huggingface_hub import constants
from unetsep.weights import hub
from unetsep.errors import WeightsError
from unetsep.weights.manifest import Checkpoint
hub.STALL = float(os.environ.get("STALL", 4))
if "BEFORE_1_0" in os.environ:
    new = huggingface_hub.hf_hub_download
    huggingface_hub.hf_hub_download = lambda repo, file, *, revision: new(
        repo, file, revision=revision
    )
entry = Checkpoint("m", "mse", "", "m.safetensors", "org/name", "v1", sys.argv[1], 1, {}, "x")
begun, block = time.monotonic(), constants.DOWNLOAD_CHUNK_SIZE
try:
    result = {"path": str(hub.fetch(entry))}
except WeightsError as error:
    result = {"error": str(error)}
cached = hub.cached_file(entry)
assert constants.DOWNLOAD_CHUNK_SIZE == block  # other downloads are as before
print(json.dumps(result | {"cached": cached and str(cached), "took": time.monotonic() - begun}))
sys.stdout.flush()
"""


def test_settings_of_the_client_are_restored_after_several_downloads_at_once() -> None:
    from huggingface_hub import constants

    before = constants.DOWNLOAD_CHUNK_SIZE
    first, second = hub._client_settings(), hub._client_settings()
    entered = threading.Event()

    def other() -> None:
        with second:
            entered.set()

    with first:
        thread = threading.Thread(target=other)
        thread.start()
        assert constants.DOWNLOAD_CHUNK_SIZE == hub.DOWNLOAD_BLOCK
        assert not entered.wait(0.2)
    thread.join()
    assert entered.is_set()
    assert before == constants.DOWNLOAD_CHUNK_SIZE


def fetch(home: Path, endpoint: str, **environment: str) -> dict[str, object]:
    """Fetch CONTENT in a fresh process; its standard error must hold no log lines."""
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, hashlib.sha256(CONTENT).hexdigest()],
        env=os.environ | settings | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Retry" not in run.stderr
    assert "Traceback" not in run.stderr
    return dict(json.loads(run.stdout))


def test_a_good_download_is_cached_and_used_offline(tmp_path: Path) -> None:
    with fake_hub("good") as (address, requests):
        first = fetch(tmp_path, address)
        assert Path(str(first["path"])).read_bytes() == CONTENT
        asked = len(requests)
        assert asked <= 4
        again = fetch(tmp_path, address)
        assert again["path"] == first["path"]
        assert len(requests) == asked
    assert fetch(tmp_path, address)["path"] == first["path"]  # the server is gone
    assert fetch(tmp_path, address, HF_HUB_OFFLINE="1")["path"] == first["path"]


CLIENTS = pytest.mark.parametrize(
    "client", [{}, {"BEFORE_1_0": "1"}], ids=["its bar is ours", "its bar is its own"]
)


@CLIENTS
def test_a_slow_download_completes(client: dict[str, str], tmp_path: Path) -> None:
    with fake_hub("slow") as (address, _):
        result = fetch(tmp_path, address, STALL="1", **client)
    assert "path" in result
    assert float(str(result["took"])) > 1.5  # longer than without a byte


@CLIENTS
def test_a_download_that_hangs_times_out(client: dict[str, str], tmp_path: Path) -> None:
    with fake_hub("hang") as (address, _):
        result = fetch(tmp_path, address, STALL="1", **client)
    assert "no data for 1 s" in str(result["error"])


def test_a_body_with_another_hash_is_deleted_from_the_cache(tmp_path: Path) -> None:
    with fake_hub("corrupt") as (address, _):
        result = fetch(tmp_path, address)
    assert "damaged or replaced" in str(result["error"])
    assert result["cached"] is None
    large = [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size >= len(CONTENT)]
    assert large == []


def test_a_hub_that_names_another_file_deletes_none(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    with fake_hub("lying") as (address, _):
        result = fetch(tmp_path / "home", address)
    assert "error" in result
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("behaviour", "stall", "said"),
    [
        ("404", "4", "HTTP status 404 (not found there)"),
        ("403", "4", "HTTP status 403 (access denied)"),
        ("429", "4", "HTTP status 429 (too many requests, try again later)"),
        ("500", "4", "HTTP status 500"),
        ("cut", "1", "no data for 1 s"),
    ],
)
def test_failures_give_one_sentence_with_file_address_and_remedy(
    behaviour: str, stall: str, said: str, tmp_path: Path
) -> None:
    with fake_hub(behaviour) as (address, _):
        result = fetch(tmp_path, address, STALL=stall)
    message = str(result["error"])
    assert said in message
    assert "m.safetensors" in message
    assert f"{address}/org/name (revision v1)" in message
    assert "--model PATH" in message
    assert "\n" not in message
    assert result["cached"] is None
    assert float(str(result["took"])) < 15


def test_a_refused_connection_is_detected_at_once(tmp_path: Path) -> None:
    result = fetch(tmp_path, "http://127.0.0.1:9")
    assert "Connection refused" in str(result["error"])
    assert float(str(result["took"])) < 5


def test_an_unusable_folder_is_not_blamed_on_the_connection(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with fake_hub("good") as (address, _):
        message = str(fetch(tmp_path / "file", address)["error"])
    assert "free or choose a folder for downloads (HF_HOME; now " in message
    assert str(tmp_path / "file") in message
    assert "check the connection" not in message


@pytest.mark.parametrize(
    ("error", "of_storage"),
    [
        *((OSError(number, os.strerror(number)), True) for number in (*FULL, errno.EIO)),
        (PermissionError(errno.EACCES, "denied", "some/file"), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (TimeoutError("no data"), False),
        (OSError("what a client says of a connection"), False),
    ],
)
def test_disk_errors_are_distinguished_from_connection_errors(
    error: Exception, of_storage: bool
) -> None:
    assert _is_of_storage(error) == of_storage


def test_offline_mode_is_reported_without_a_request(tmp_path: Path) -> None:
    with fake_hub("good") as (address, requests):
        result = fetch(tmp_path, address, HF_HUB_OFFLINE="1")
        assert "HF_HUB_OFFLINE is set" in str(result["error"])
        assert requests == []


def test_a_damaged_cache_is_detected_and_cleared(tmp_path: Path) -> None:
    with fake_hub("good") as (address, _):
        path = Path(str(fetch(tmp_path, address)["path"]))
        path.write_bytes(CONTENT[:-1])
        assert "damaged" in str(fetch(tmp_path, address)["error"])
        assert Path(str(fetch(tmp_path, address)["path"])).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_repaired_is_named_with_a_remedy(tmp_path: Path) -> None:
    with fake_hub("good") as (address, _):
        path = Path(str(fetch(tmp_path, address)["path"]))
        ref = path.parents[2] / "refs" / "v1"
        commit = ref.read_bytes()
        ref.write_bytes(b"\xff")
        message = str(fetch(tmp_path, address)["error"])
        assert "choose a folder for downloads (HF_HOME; now " in message
        assert "check the connection" not in message
        ref.write_bytes(commit)
        path.unlink()
        path.mkdir()
        message = str(fetch(tmp_path, address)["error"])
        assert message.startswith(f"{path} cannot be read: ")
        assert "; delete this folder, or " in message
        path.rmdir()
        assert Path(str(fetch(tmp_path, address)["path"])).read_bytes() == CONTENT


def test_the_server_of_these_tests_hangs_when_told_to() -> None:
    """Guards the tests above: a server that answered would prove nothing."""
    with fake_hub("hang") as (address, _):
        import urllib.request

        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(address, timeout=0.5)
        assert time.monotonic() - begun >= 0.5


@pytest.mark.parametrize(
    "variable",
    [("HF_HUB_DOWNLOAD_TIMEOUT", "abc"), ("HF_ENDPOINT", "http://127.0.0.1:99999")],
    ids=" ".join,
)
def test_an_invalid_variable_of_the_client_gets_one_sentence(
    tmp_path: Path, variable: tuple[str, str]
) -> None:
    code = (
        "from unetsep.weights import hub\nfrom unetsep.errors import WeightsError\n"
        "from unetsep.weights.manifest import list_models\n"
        "try:\n    hub.cached_file(list_models()[0])\n"
        "except WeightsError as error:\n    print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_HOME": str(tmp_path), variable[0]: variable[1]},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.startswith("huggingface_hub cannot start: ")
    assert run.stdout.endswith("; check the variables that begin with HF_\n")
