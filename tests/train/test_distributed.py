"""Runs that torchrun or SLURM start: who is who, and what does not fit together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy

from tests.train.synthetic import tiny
from unetsep.train.config import TrainingError
from unetsep.train.distributed import detect_launcher, processes
from unetsep.train.fit import build_trainer
from unetsep.train.logs import is_main_process
from unetsep.train.machine import Machine
from unetsep.train.run_folder import resumable_step

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "16"}
# What srun --nodes 2 --ntasks-per-node 2 sets for the last of four processes.
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_NODELIST": "localhost",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher's variables from outside."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in (*TORCHRUN, "NODE_RANK"):
            monkeypatch.delenv(name)


def start(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_options_set_the_number_of_processes_without_a_launcher() -> None:
    assert detect_launcher() is None
    assert processes(None, None) == (1, 1)
    assert processes(4, 2) == (4, 2)


@pytest.mark.parametrize(
    ("variables", "expected"), [(TORCHRUN, ("torchrun", 8, 2)), (SLURM, ("srun", 2, 2))]
)
def test_launchers_set_the_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[str, int, int]
) -> None:
    start(monkeypatch, variables)
    assert detect_launcher() == expected
    assert processes(None, None) == expected[1:]
    assert processes(*expected[1:]) == expected[1:]
    with pytest.raises(TrainingError, match=f"{expected[0]} started {expected[1]} processes"):
        processes(5, None)
    with pytest.raises(TrainingError, match=r"have it start .* on 3"):
        processes(None, 3)


def test_an_interactive_shell_of_slurm_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, SLURM | {"SLURM_JOB_NAME": "bash"})
    assert detect_launcher() is None


def test_the_trainer_takes_its_rank_from_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 3)
    start(monkeypatch, SLURM)
    trainer = build_trainer(tiny(), tmp_path, Machine("cpu", devices=2, nodes=2), [])
    strategy = trainer.strategy
    assert isinstance(strategy, DDPStrategy)
    assert isinstance(strategy.cluster_environment, SLURMEnvironment)
    assert (trainer.world_size, trainer.num_nodes) == (4, 2)
    assert (trainer.global_rank, trainer.local_rank, trainer.node_rank) == (3, 1, 1)
    assert strategy.cluster_environment.main_port == 15000 + 4711


def test_only_the_first_process_of_the_first_machine_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert is_main_process()
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_main_process()
    monkeypatch.setenv("NODE_RANK", "0")
    assert is_main_process()


def test_a_run_under_slurm_equals_one_that_starts_its_own_processes(tmp_path: Path) -> None:
    running = []
    for rank in (0, 1):
        place = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0}
        size = {"SLURM_NTASKS": 2, "SLURM_NNODES": 1, "SLURM_JOB_ID": 1000 + os.getpid() % 9000}
        variables = SLURM | {name: str(value) for name, value in (place | size).items()}
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.train.ddp_run", str(tmp_path)],
                cwd=Path(__file__).parent.parent.parent,
                env=os.environ | variables,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    messages = [process.communicate(timeout=300)[1] for process in running]
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert not set(first["clips"]) & set(second["clips"])
    for name, gradient in first["gradients"].items():
        torch.testing.assert_close(second["gradients"][name], gradient, rtol=1e-5, atol=1e-8)
    # The second one was killed: the first notices without having started it.
    assert running[1].returncode == -9
    assert running[0].returncode == 1
    assert "stopped: another process of this run ended; the run stops, the last good" in messages[0]
    config = tiny(freeze_norm=True, max_steps=100, losses=("l1", "mse"))
    assert resumable_step(tmp_path / "run" / "last.ckpt", config) == 3
