"""The scripts that train the published models, with a stub in place of ``unetsep``."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import check_unetsep

RECIPES = Path(__file__).parents[2] / "recipes"
# Writes its arguments down, one a line, and makes the folder that a run would leave.
STUB = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word" >> {log}.$$; done
while [ $# -gt 1 ]; do [ "$1" = --run ] && mkdir -p "$2"; shift; done
exit 0
"""
# Writes its arguments down in a line, and the last of them as a file.
PYTHON = """#!/bin/sh
echo "$@" >> {log}
while [ $# -gt 1 ]; do shift; done
touch "$1"
"""
# Says when it runs and is told to end, and ends once it is let; logs how often it was told.
TOLD = """#!{python} -S
import os, signal, sys
told = []
def note(number, _):
    told.append(number)
    os.write({says}, b"t")
signal.signal(signal.SIGTERM, note)
os.write({says}, b"r")
os.read({let}, 1)
run = sys.argv[sys.argv.index("--run") + 1]
with open({log!r}, "a") as log:
    log.write(f"{{os.path.basename(run)}} {{len(told)}}\\n")
os.write({says}, b"e")
sys.exit(143)
"""

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")


def commands(folder: Path, script: str, *arguments: str, **settings: str) -> list[list[str]]:
    """The words of each call of ``unetsep``."""
    stub, log = folder / "bin" / "unetsep", folder / "call"
    stub.parent.mkdir(parents=True)
    stub.write_text(STUB.format(log=shlex.quote(str(log))))
    python = stub.with_name("python")
    python.write_text(PYTHON.format(log=shlex.quote(str(folder / "python.log"))))
    for program in (stub, python):
        program.chmod(0o755)
    env = {**os.environ, "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}", **settings}
    subprocess.run(["sh", str(RECIPES / script), *arguments], env=env, check=True, timeout=60)
    return [path.read_text().splitlines() for path in folder.glob("call.*")]


def test_the_losses_are_trained_by_options_that_exist(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    (words,) = commands(tmp_path, "losses.sh", "M", "S", "P", run, "--losses", "mse,l1")
    check_unetsep(list(words))
    assert words[words.index("--leave-out", words.index("P")) + 1].endswith("=vocals,other")
    assert words[-2:] == ["--losses", "mse,l1"]  # the last one counts
    assert "--resident" in words
    run += "-cpu"
    (words,) = commands(tmp_path / "cpu", "losses.sh", "M", "S", "P", run, ACCELERATOR="cpu")
    check_unetsep(list(words))
    assert "--resident" not in words
    assert words[words.index("--accelerator") + 1] == "cpu"


def test_the_smaller_comparison_is_trained_by_options_that_exist(tmp_path: Path) -> None:
    calls = commands(tmp_path, "small_comparison.sh", "M", "S", "P", str(tmp_path / "runs"))
    for words in calls:
        check_unetsep(list(words))
    four, alone = sorted(calls, key=lambda words: "--targets" in words)
    assert four[four.index("--max-steps") + 1] == "500"
    assert alone[alone.index("--losses") + 1].endswith("log_mse_120")


def test_the_default_model_is_trained_by_options_that_exist(tmp_path: Path) -> None:
    calls = commands(tmp_path, "default_model.sh", "M", "S", "P", str(tmp_path / "runs"))
    for words in calls:
        check_unetsep(list(words))
    # Three runs, four rounds of two, the long one, three with the loss on magnitudes, the rest,
    # the branch for low bins twice, and the whole twice.
    assert sum(words[0] == "train" for words in calls) == 3 + 4 * 2 + 1 + 3 + 1 + 2 + 2
    assert sum(words[0] == "average" for words in calls) == 4 + 1 + 1


def test_the_open_model_is_trained_by_options_that_exist_on_what_is_open(tmp_path: Path) -> None:
    runs, given = tmp_path / "runs", ("M", "S", "P", "MIDI", "SETS")
    calls = commands(tmp_path, "open_model.sh", *given, str(runs), SOUNDFONTS="a.sf2 b.sf2")
    for words in calls:
        check_unetsep(list(words))
    trained = [words for words in calls if words[0] == "train"]
    assert len(trained) == 3
    for words in trained:
        # Nothing of what was given goes into training but through DATA.
        assert not {"M", "S", "P", "MIDI"} & set(words)
        assert words[words.index("--musdb-root") + 1] == str(runs / "data" / "validation")
    made = (tmp_path / "python.log").read_text().splitlines()
    assert made[0].split()[1:] == ["M", "S", "P", str(runs / "data")]
    assert [line.split()[1] for line in made[1:]] == ["MIDI/songs", "MIDI/songs", "MIDI/drums"]
    assert sorted(path.name for path in (runs / "data").iterdir()) == [
        "drummed",
        "rendered",
        "sampled",
    ]


def test_the_default_model_is_resumed_within_its_minutes_and_not_begun_again(
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    arguments = ("default_model.sh", "M", "S", "P", str(runs), "2stems")
    calls = commands(tmp_path / "a", *arguments, MINUTES="30", ACCELERATOR="gpu")
    begun = {
        "rest": "joined.safetensors",
        "low": "rest/best-mse.safetensors",
        "sounds": "low/best-mse.safetensors",
        "whole-703": "blended.safetensors",
        "whole-804": "blended.safetensors",
    }
    for run, first in begun.items():
        (words,) = (words for words in calls if str(runs / run) in words)
        check_unetsep(list(words))
        assert words[words.index("--max-minutes") + 1] == "30"
        assert words[words.index("--init-from") + 1] == str(runs / first)
        assert "--resident" in words
        assert ("--low-band" in words) == (run in ("low", "sounds"))
    told = (tmp_path / "a" / "python.log").read_text().splitlines()
    guide = runs / "spleeter-vocals.safetensors"
    assert [line.split()[1:] for line in told] == [
        ["guide", "2stems", str(guide)],
        ["join", str(runs / "fast.safetensors"), str(guide), str(runs / "joined.safetensors")],
        [
            "blend",
            str(runs / "sounds" / "best-mse.safetensors"),
            str(runs / "joined.safetensors"),
            str(runs / "blended.safetensors"),
        ],
    ]
    (runs / "rest" / "done").unlink()
    (runs / "rest" / "last.ckpt").touch()
    moved = ("default_model.sh", "M2", "S", "P", str(runs), "2stems")
    calls = commands(tmp_path / "b", *moved, MINUTES="60")
    resumed = [words for words in calls if words[0] == "train"]
    assert [words[:4] for words in resumed] == [["train", "--run", str(runs / "rest"), "--resume"]]
    assert resumed[0][resumed[0].index("--musdb-root") + 1] == "M2"
    assert resumed[0][resumed[0].index("--max-minutes") + 1] == "60"
    check_unetsep(list(resumed[0]))
    assert not (tmp_path / "b" / "python.log").exists()


@pytest.mark.parametrize(
    ("script", "first"),
    [
        ("default_model.sh", "first"),
        ("open_model.sh", "beside"),
        ("small_comparison.sh", "four-stems"),
    ],
)
def test_a_run_that_broke_off_before_it_could_be_resumed_begins_again(
    tmp_path: Path, script: str, first: str
) -> None:
    runs = tmp_path / "runs"
    given = ("M", "S", "P", "MIDI", "SETS") if script == "open_model.sh" else ("M", "S", "P")
    (runs / first).mkdir(parents=True)
    left = runs / first / "best-mse.safetensors"
    left.touch()
    calls = commands(tmp_path / "a", script, *given, str(runs))
    assert any(words[:3] == ["train", "--run", str(runs / first)] for words in calls)
    assert not left.exists()


def test_a_comparison_that_was_killed_before_it_could_be_resumed_begins_again(
    tmp_path: Path,
) -> None:
    run, stub = tmp_path / "runs" / "all", tmp_path / "bin" / "unetsep"
    weights = run / "best-mse.safetensors"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(weights))}\nexit 137\n")
    stub.chmod(0o755)
    env = {**os.environ, "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}"}
    words = ("losses.sh", "M", "S", "P", str(run))
    killed = ["sh", str(RECIPES / words[0]), *words[1:]]
    assert subprocess.run(killed, env=env, check=False, timeout=60).returncode != 0
    assert weights.exists()
    (call,) = commands(tmp_path / "b", *words)
    assert "--resume" not in call
    assert not weights.exists()
    assert [path.name for path in run.iterdir()] == ["done"]


def test_a_comparison_removes_no_weights_from_a_folder_that_it_did_not_begin(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "mine" / "best-mse.safetensors"
    weights.parent.mkdir()
    weights.touch()
    commands(tmp_path / "a", "losses.sh", "M", "S", "P", str(weights.parent))
    assert weights.exists()
    assert not (weights.parent / "begun").exists()


@pytest.mark.parametrize(
    "script", ["losses.sh", "default_model.sh", "open_model.sh", "small_comparison.sh"]
)
def test_too_few_arguments_are_refused(script: str) -> None:
    run = subprocess.run(
        ["sh", str(RECIPES / script), "M"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "usage:" in run.stderr


def test_when_one_of_two_parallel_runs_fails_the_other_ends_before_the_script(
    tmp_path: Path,
) -> None:
    stub = tmp_path / "bin" / "unetsep"
    stub.parent.mkdir()
    stub.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {shlex.quote(str(tmp_path / "calls"))}\n'
        'case "$*" in *strong-1*) exit 3 ;; *mild-1*) sleep 1 ;; esac\n'
        'while [ $# -gt 1 ]; do [ "$1" = --run ] && mkdir -p "$2" && run=$2; shift; done\n'
        f"echo $run >> {shlex.quote(str(tmp_path / 'ended'))}\n"
    )
    stub.chmod(0o755)
    env = {**os.environ, "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}"}
    words = ["sh", str(RECIPES / "default_model.sh"), "M", "S", "P", str(tmp_path / "runs")]
    done = subprocess.run(words, env=env, check=False, timeout=60)
    assert done.returncode != 0
    assert "mild-1" in (tmp_path / "ended").read_text().splitlines()[-1]
    assert "average" not in (tmp_path / "calls").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_script_that_is_told_to_end_ends_its_trainings_by_one_signal_each(
    tmp_path: Path, whole_group: bool
) -> None:
    runs, log, stub = tmp_path / "runs", tmp_path / "log", tmp_path / "bin" / "unetsep"
    for name in ("first", "second", "start"):
        (runs / name).mkdir(parents=True)
        (runs / name / "done").touch()
    (heard, says), (let, go) = os.pipe(), os.pipe()
    stub.parent.mkdir()
    stub.write_text(TOLD.format(python=sys.executable, says=says, let=let, log=str(log)))
    stub.chmod(0o755)
    env = {**os.environ, "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}"}
    words = ["sh", str(RECIPES / "default_model.sh"), "M", "S", "P", str(runs)]
    script = subprocess.Popen(words, env=env, pass_fds=(says, let), start_new_session=True)
    os.close(says)

    def both_say(letter: bytes) -> None:
        for _ in range(2):
            assert select.select([heard], [], [], 60)[0], "nothing is said"
            assert os.read(heard, 1) == letter

    try:
        both_say(b"r")
        (os.killpg if whole_group else os.kill)(script.pid, signal.SIGTERM)
        both_say(b"t")
        if whole_group:  # the signal that must not come could come until the script has ended
            assert script.wait(60) == 143
    finally:
        os.close(go)
    both_say(b"e")
    assert script.wait(60) == 143
    os.close(let)
    os.close(heard)
    assert sorted(log.read_text().splitlines()) == ["mild-1 1", "strong-1 1"]


def test_the_comparisons_are_resumed_and_not_begun_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    smaller = ("small_comparison.sh", "M", "S", "P", str(runs))
    larger = ("losses.sh", "M", "S", "P", str(runs / "all"), "--seed", "1")
    for number, (script, of_script) in enumerate(
        {smaller: ("four-stems", "vocals"), larger: ("all",)}.items()
    ):
        assert len(commands(tmp_path / f"begun-{number}", *script)) == len(of_script)
        assert not commands(tmp_path / f"ended-{number}", *script)
        broken = runs / of_script[-1]
        (broken / "done").unlink()
        (broken / "last.ckpt").touch()
        (words,) = commands(tmp_path / f"resumed-{number}", *script)
        check_unetsep(list(words))
        assert words[:4] == ["train", "--run", str(broken), "--resume"]
        assert not {"--network", "--targets", "--leave-out"} & set(words)
        assert words[words.index("--pools") + 1] == "P"
    assert words[-2:] == ["--seed", "1"]
