from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_named_in_the_documentation_exists():
    text = (ROOT / "docs/development.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 40
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


def test_every_pain_has_its_row():
    text = (ROOT / "docs/development.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE) == [str(i) for i in range(1, 26)]


def test_the_core_starts_no_processes_but_ffmpeg():
    core = [path for path in (ROOT / "unetsep").rglob("*.py") if "train" not in path.parts]
    assert len(core) > 45
    for path in core:
        text = path.read_text(encoding="utf-8")
        assert "multiprocessing" not in text, path
        assert "ProcessPool" not in text, path
        assert ("subprocess" in text) <= (path.name == "ffmpeg.py"), path


def test_messages_in_the_troubleshooting_page_are_those_of_the_program():
    files = list((ROOT / "unetsep").rglob("*.py"))
    assert len(files) >= 95
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    flat = re.sub(r'"\s*\n\s*f?"', "", sources)
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    for message in (
        "does not exist",
        "is a folder where an audio file was expected",
        "is not a regular file",
        "is not audio that can be read",
        "it has no audio track",
        "holds no audio samples",
        "is cut short: its header promises",
        "holds NaN or infinite samples, the first at",
        "and was stopped",
        "has no end mark, as if it was cut off",
        "may be cut short",
        "is damaged in places; ffmpeg says",
        "may be damaged or misnamed: libsndfile could not read it",
        "is several mp3 files joined into one",
        "exists already: use --overwrite or --skip-existing",
        "appeared while its song was being separated",
        "would both be written to",
        "would be written over an input",
        "All stems were lowered by",
        "was asked for but torch",
        "could not be downloaded from",
        "was damaged or replaced: its SHA-256 is",
        "does not fit its own config",
        "out of memory; close other programs or use --device cpu",
    ):
        assert message in page, message
        assert message in flat, message
