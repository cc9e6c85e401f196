"""The image and the jobs of clusters: their commands run here, where no daemon is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import site
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import soundfile
import yaml

from tests.signals import RATE, music
from unetsep.cli import CONTEXT
from unetsep.cli.options.separate import separate
from unetsep.library.shards import Shard

pytestmark = pytest.mark.skipif(os.name == "nt", reason="images and jobs are of Linux")

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "examples/cluster"
# Nobody's number: a user without a name, as `docker run --user` may give.
STRANGER = 54_321

# It may read what is root's, such as the interpreter of these tests, and write nothing of it.
READ = "+dac_read_search"
AS_STRANGER = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
AS_STRANGER += [f"--inh-caps={READ}", f"--ambient-caps={READ}"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as pairs of a word and its arguments."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def tool(name: str) -> str:
    """A program of the development packages, beside this Python."""
    path = shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None and "CI" not in os.environ:
        pytest.skip(f"needs {name}")
    assert path, f"{name} is not installed: run make test"
    return path


def test_the_dockerfile_is_clean():
    lint = subprocess.run(
        [tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_the_image_holds_only_what_it_needs_and_runs_without_root():
    words = dict(instructions())
    assert words["USER"] == "1000:1000"
    assert words["ENTRYPOINT"] == '["unetsep"]'
    assert "RAY_USAGE_STATS_ENABLED=0" in words["ENV"]
    pips = [text for word, text in instructions() if word == "RUN" and "pip install" in text]
    assert len(pips) == 2
    assert all("-c constraints.txt" in text for text in pips)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {
        name
        for word, text in instructions()
        if word == "COPY" and not text.startswith("--from")
        for name in text.split()[:-1]
    }
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that a stranger can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="unetsep-image-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101
        yield Path(folder)


class Shell:
    """Runs commands as the image's user would, who is not root."""

    def __init__(self, home: Path) -> None:
        self.user = STRANGER if os.geteuid() == 0 else None
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            # Packages come from those that are installed here; nothing is downloaded.
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def make_folder(self, path: Path) -> Path:
        path.mkdir()
        if self.user:
            os.chown(path, self.user, self.user)
        return path

    def run(self, command: str, folder: Path) -> str:
        ended = subprocess.run(
            [*(AS_STRANGER if self.user else []), "sh", "-c", command],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


def copy(source: Path, target: Path) -> None:
    """Copy what the image is built from, readable by all, without caches."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0))


def build_image(shell: Shell, source: Path, image: Path) -> None:
    """Follow the Dockerfile, with a folder for its sources and one for what the image holds."""
    done = 0
    for word, text in instructions():
        for name, value in {"TORCH": "cpu", "EXTRAS": "ffmpeg"}.items():
            text = text.replace(f"${{{name}}}", value)
        text = text.replace("/opt/unetsep", str(image / "venv"))
        if word == "COPY" and not text.startswith("--from"):
            *names, target = text.split()
            for name in names:
                copy(ROOT / name, source / target / (name if target == "./" else ""))
        elif word == "RUN":
            python = shlex.quote(sys.executable)
            shell.run(text.replace("python -m venv", f"{python} -m venv", 1), source)
            done += 1
            if "-m venv" in text:
                (inner,) = (image / "venv/lib").glob("python*/site-packages")
                packages = "\n".join(site.getsitepackages())
                shell.run(f"printf '%s\\n' {shlex.quote(packages)} > {inner}/here.pth", source)
        elif word == "ENV":
            pairs = (each.partition("=") for each in text.split())
            shell.environment |= {name: value for name, _, value in pairs if name != "PATH"}
    assert done == 3


def test_the_commands_of_the_dockerfile_work_in_a_fresh_environment_without_root(place):
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if f"torch=={version('torch').partition('+')[0]}" not in constraints:
        pytest.skip("needs the torch of constraints.txt")
    shell = Shell(place / "image")
    source, image, songs = map(
        shell.make_folder, (place / "source", place / "image", place / "music")
    )
    build_image(shell, source, image)
    shutil.rmtree(source)  # the build stage is left behind, as in the image
    shell.environment["PATH"] = f"{image / 'venv/bin'}:/usr/bin:/bin"
    shell.environment["OMP_NUM_THREADS"] = "1"
    soundfile.write(songs / "song.wav", music(0.3).T, RATE)

    assert "separate" in shell.run("unetsep --help", songs)
    where = shell.run("python -c 'import unetsep; print(unetsep.__file__)'", songs)
    assert where.startswith(str(image))
    shell.run("unetsep separate song.wav -m fast", songs)
    stem = songs / "separated/song/vocals.wav"
    assert stem.stat().st_uid == (shell.user or os.geteuid())


def test_the_jobs_of_kubernetes_are_valid():
    files = sorted(CLUSTER.glob("*.yaml"))
    assert files
    check = [tool("kubernetes-validate"), "--strict", *map(str, files)]
    ended = subprocess.run(check, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def shards(script: list[str], tmp_path: Path, environments: list[dict[str, str]]) -> list[Shard]:
    """The shards that a script's commands of unetsep take, one run after another."""
    recorder = tmp_path / "unetsep"
    recorder.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n', encoding="utf-8")
    recorder.chmod(0o755)
    taken = []
    for each in environments:
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        said = subprocess.run(script, env=path | each, capture_output=True, text=True, check=True)
        command, *words = said.stdout.split("\0")[:-1]
        assert command == "separate"
        context = separate.make_context("separate", words, **CONTEXT)
        assert context.params["skip_existing"]
        taken.append(context.params["shard"])
    return taken


def test_jobs_of_kubernetes_and_slurm_take_every_shard_once(tmp_path):
    job = yaml.safe_load((CLUSTER / "job.yaml").read_text(encoding="utf-8"))["spec"]
    (container,) = job["template"]["spec"]["containers"]
    pods = [{"JOB_COMPLETION_INDEX": str(index)} for index in range(job["completions"])]
    everything = [Shard(k, 20) for k in range(1, 21)]
    assert shards([*container["command"], *container["args"]], tmp_path, pods) == everything
    array = (CLUSTER / "array.slurm").read_text(encoding="utf-8")
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", array).groups())
    tasks = [
        {
            "SLURM_ARRAY_TASK_ID": str(index),
            "SLURM_ARRAY_TASK_COUNT": str(last - first + 1),
            "SLURM_CPUS_PER_TASK": "4",
        }
        for index in range(first, last + 1)
    ]
    assert shards(["bash", str(CLUSTER / "array.slurm")], tmp_path, tasks) == everything
    again = [tasks[6] | {"SLURM_ARRAY_TASK_COUNT": "1"}]  # sent alone
    assert shards(["bash", str(CLUSTER / "array.slurm")], tmp_path, again) == [Shard(7, 20)]
