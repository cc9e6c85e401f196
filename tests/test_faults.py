"""Kills, interrupts, full disks and competing processes, through the real command.

``UNETSEP_KILLS=50 UNETSEP_INTERRUPTS=20 pytest tests/test_faults.py`` is the long version.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.forks import Forks
from tests.signals import RATE, music

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks and signals")

KILLS = int(os.environ.get("UNETSEP_KILLS", "3"))
INTERRUPTS = int(os.environ.get("UNETSEP_INTERRUPTS", "3"))
SECONDS = 4  # of the song: several segments


class Case:
    """A song, how to separate it, and what an undisturbed run gives, in how many seconds."""

    def __init__(self, forks: Forks, folder: Path, model: Path, container: str) -> None:
        self.forks, self.model, self.container = forks, model, container
        self.source = folder / "song.wav"
        soundfile.write(self.source, music(SECONDS, RATE, 2, 0).T, RATE, subtype="FLOAT")
        self.move(folder)
        self.seconds = min(self.run(folder / "whole")["seconds"] for _ in range(2))
        self.whole = self.contents(folder / "whole")
        assert len(self.whole) == 4

    def move(self, folder: Path) -> None:
        """Go on in another folder, with no stems."""
        self.folder, self.out = folder, folder / "out"

    def run(self, out: Path, *options: str, **job: object) -> dict[str, float]:
        arguments = ["separate", "-q", "-m", self.model, "-d", "cpu", "-f", self.container]
        arguments += ["-o", out, *(options or ["--overwrite"]), self.source]
        return self.forks.run(arguments=arguments, stderr=self.folder / "stderr", **job)

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    @staticmethod
    def contents(folder: Path) -> dict[str, bytes]:
        records = {*folder.rglob(".unetsep.*.json"), *folder.glob("unetsep-*.jsonl")}
        files = (path for path in folder.rglob("*") if path.is_file() and path not in records)
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    def finished(self) -> dict[str, bytes]:
        found = self.contents(self.out)
        return {name: content for name, content in found.items() if ".unetsep-" not in name}

    def assert_completed_by_skip_existing(self) -> None:
        assert self.finished().items() <= self.whole.items()
        assert self.run(self.out, "--skip-existing")["code"] == 0
        assert self.contents(self.out) == self.whole


@pytest.fixture(scope="module", params=["wav", "flac"])
def reference_case(request, forks, tmp_path_factory, tiny_model):
    return Case(forks, tmp_path_factory.mktemp("whole"), tiny_model, request.param)


@pytest.fixture
def case(reference_case, tmp_path):
    reference_case.move(tmp_path)
    return reference_case


def moments(count: int, seconds: float) -> list[float]:
    """Evenly over the run, and a little beyond its end."""
    return [1.1 * seconds * (i + 0.5) / count for i in range(count)]


def test_a_kill_leaves_no_half_written_stem_and_the_next_run_completes_the_folder(case):
    for after in moments(KILLS, case.seconds):
        case.run(case.out, signal=9, after=after)
        case.assert_completed_by_skip_existing()
        shutil.rmtree(case.out)


def test_leftovers_of_a_kill_are_removed_even_if_the_song_is_complete(case):
    case.run(case.out, signal=9, after=case.seconds / 2)
    case.run(case.out)
    assert case.contents(case.out) == case.whole


@pytest.mark.parametrize(("number", "code"), [(1, 129), (2, 130), (15, 143)])
def test_an_interrupt_leaves_no_partial_file_and_no_traceback(case, number, code):
    for after in moments(INTERRUPTS, 0.9 * case.seconds):
        done = case.run(case.out, signal=number, after=after)
        assert "Traceback" not in case.stderr
        assert done["code"] in (code, 0), case.stderr
        if case.out.exists():
            assert case.contents(case.out).items() <= case.whole.items()
            case.assert_completed_by_skip_existing()
            shutil.rmtree(case.out)


def test_a_run_under_nohup_outlives_its_terminal(case):
    done = case.run(case.out, signal=1, after=case.seconds / 2, nohup=True)
    assert done["code"] == 0, case.stderr
    assert case.contents(case.out) == case.whole


def test_a_disk_that_fills_up_gives_one_sentence_and_leaves_no_file(case):
    # A limit on the size of files fails in the same places as a full disk.
    largest = max(len(content) for content in case.whole.values())
    # Floats of 32 bits as they are in wav, integers of 24 bits for flac.
    spool = SECONDS * RATE * 2 * (3 if case.container == "flac" else 4)
    for size in (1000, 5000, largest // 2, largest - 1, spool // 2, spool - 1000):
        done = case.run(case.out, "--overwrite", bytes=size)
        assert done["code"] == 1, size
        assert "failed: " in case.stderr
        assert "Traceback" not in case.stderr
        assert case.stderr.count("\n") == 1
        assert not case.out.exists()


def test_processes_in_one_folder_do_not_corrupt_each_other(forks, song, tmp_path, tiny_model):
    source = song("song.wav", seconds=8, subtype="FLOAT")
    jobs = []
    for name, container in [("whole", "flac"), ("out", "flac"), ("out", "flac"), ("out", "wav")]:
        arguments = ["separate", "-q", "-m", tiny_model, "-d", "cpu", "--overwrite", "-f"]
        arguments += [container, "-o", tmp_path / name, source]
        jobs.append({"arguments": arguments, "stderr": tmp_path / f"stderr{len(jobs)}"})
    assert [ended["code"] for ended in forks.run_together(*jobs)] == [0] * 4
    assert [(tmp_path / f"stderr{i}").read_text() for i in range(4)] == [""] * 4
    found = Case.contents(tmp_path / "out")
    assert len(found) == 8
    assert Case.contents(tmp_path / "whole").items() <= found.items()


def test_a_read_only_disk_is_reported(forks, song, tmp_path, tiny_model):
    mount = tmp_path / "mount"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(mount)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        arguments = ["separate", "-q", "-m", tiny_model, "-o", mount / "out", song(seconds=0.2)]
        done = forks.run(arguments=arguments, stderr=tmp_path / "stderr")
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    assert done["code"] == 1
    assert (
        "Read-only file system; choose another folder with -o" in (tmp_path / "stderr").read_text()
    )


@pytest.mark.parametrize(
    ("container", "kilobytes"),
    # With 5600 kB the float samples of four seconds just fit, what they are converted to not; with
    # 4250 kB those of 24 bits.
    [("wav", 300), ("wav", 4200), ("mp3", 300), ("flac", 4250), ("ogg", 5600), ("mp3", 5600)],
)
def test_a_full_disk_is_reported(forks, song, tmp_path, tiny_model, container, kilobytes):
    mount = tmp_path / "mount"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(mount)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        arguments = ["separate", "-q", "-m", tiny_model, "-f", container, "-o", mount / "out"]
        arguments.append(song(seconds=4, subtype="FLOAT"))
        done = forks.run(arguments=arguments, stderr=tmp_path / "stderr")
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    assert done["code"] == 1
    text = (tmp_path / "stderr").read_text()
    assert "make room or choose another folder with -o" in text
    assert text.count("\n") == 1


COMMAND = [sys.executable, "-W", "ignore", "-m", "unetsep", "separate", "--json", "-d", "cpu"]
FOUR = ("a", "b", "c", "d")


@pytest.fixture
def four_songs(song, tmp_path):
    for seed, name in enumerate(FOUR):
        song(f"in/{name}.wav", seconds=4, seed=seed)
    return tmp_path / "in"


@pytest.fixture
def words(four_songs, tmp_path, tiny_model):
    """Separate those of four songs that are not separated yet."""
    return ["-m", str(tiny_model), "-o", str(tmp_path / "out"), "--skip-existing", str(four_songs)]


def statuses(forks: Forks, folder: Path, words: list[str], runs: int) -> list[tuple[str, str]]:
    """Songs, and what became of them, in some runs at the same time."""
    arguments = ["separate", "--json", "-d", "cpu", *words]
    streams = [{"stdout": folder / f"{n}.out", "stderr": folder / f"{n}.err"} for n in range(runs)]
    ended = forks.run_together(*({"arguments": arguments} | each for each in streams))
    errors = [each["stderr"].read_text() for each in streams]
    assert "Traceback" not in "".join(errors)
    assert [each["code"] for each in ended] == [0] * runs, errors
    lines = [line for each in streams for line in each["stdout"].read_text().splitlines()]
    return [(Path(each["source"]).stem, each["status"]) for each in map(json.loads, lines)]


def test_two_processes_on_one_folder_separate_each_song_once(forks, words, tmp_path):
    told = statuses(forks, tmp_path, words, runs=2)
    assert sorted(name for name, status in told if status == "ok") == list(FOUR)
    assert sorted(name for name, status in told if status == "skipped") == list(FOUR)
    assert len(Case.contents(tmp_path / "out")) == 16


def test_a_run_after_a_kill_skips_finished_songs(forks, words, tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, *words], **pipes) as killed:
        first = json.loads(killed.stdout.readline())
        killed.kill()
    # Several songs are worked on at a time: any may end first.
    name = Path(first["source"]).stem
    made = {path: path.stat().st_ino for path in (tmp_path / "out" / name).glob("[!.]*")}
    told = statuses(forks, tmp_path, words, runs=1)
    assert (name, "skipped") in told
    assert {path: path.stat().st_ino for path in made} == made
    assert sorted(name for name, _ in told) == list(FOUR)
    assert len(made) == 4
    assert len(Case.contents(tmp_path / "out")) == 16


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full", "2>&- 1>&- 0<&-"])
def test_a_closed_stderr_does_not_stop_a_run(song, tmp_path, tiny_model, closing):
    command = [*COMMAND[:-3], "-m", tiny_model, "-o", tmp_path / "out", song(seconds=0.2)]
    line = " ".join(map(str, command)).replace("-W ignore", "-Wignore")
    done = subprocess.run(["sh", "-c", f"exec {line} {closing}"], check=False, capture_output=True)
    assert done.returncode == 0
    assert len(Case.contents(tmp_path / "out")) == 4


@pytest.mark.parametrize("words", ["--help", "--version", "separate --help"])
def test_help_that_cannot_be_written_gives_one_sentence(words):
    line = f"exec {sys.executable} -m unetsep {words} 1>/dev/full"
    done = subprocess.run(["sh", "-c", line], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


@pytest.mark.parametrize(
    ("closing", "message"),
    [
        ("1>&-", "stdout took no more reports: it is closed"),
        ("1>/dev/full", "stdout took no more reports: No space left on device"),
    ],
)
def test_reports_that_cannot_be_written_do_not_stop_songs(
    four_songs, tmp_path, tiny_model, closing, message
):
    command = [*COMMAND, "-m", tiny_model, "-o", tmp_path / "out", four_songs]
    line = " ".join(map(str, command))
    done = subprocess.run(["sh", "-c", f"exec {line} {closing}"], check=False, capture_output=True)
    assert done.returncode == 1
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert len(Case.contents(tmp_path / "out")) == 16
