"""Recorded steps: what is recorded is the same at every step, and does what steps did before.

There is no CUDA graph without a GPU. `Recording` does on a CPU what one does: it notes every
operation with its arguments and the memory that they lie in, and does them again, without any
Python of the step in between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.train.runs import At, interrupt, log, run
from tests.train.synthetic import GUIDE, MODEL, tiny
from unetsep.network.guided import Guided
from unetsep.network.presets import spleeter_config
from unetsep.network.unet import UNet
from unetsep.train import graph
from unetsep.train.config import TrainConfig, TrainingError
from unetsep.train.losses import spectra
from unetsep.train.losses.blocks import divide
from unetsep.train.losses.functions import LOSSES
from unetsep.train.machine import Machine
from unetsep.train.module import SeparationModule

record_graph, noting_waits = graph.record, graph.noting_waits  # which the tests replace
aten = torch.ops.aten
# What asks for values, or has a shape that depends on them.
ASKING = (
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.is_nonzero, aten.equal),
    *(aten._unique2, aten.unique_dim, aten.repeat_interleave, aten.bincount),
)


class Recording(TorchDispatchMode):
    """All operations of a piece of work, which can be done again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.made: set[int] = set()  # memory that the work itself asked for
        # Memory that was there before, and what was in it.
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket
        if name in ASKING:
            raise RuntimeError(f"{name} asks for a value")
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if name in (aten.index, aten.index_put) and any(i.dtype == torch.bool for i in given[1:]):
            raise RuntimeError(f"{name} by booleans has a shape that depends on values")
        for each in given:
            if memory(each) not in self.made | set(self.before):
                self.before[memory(each)] = (each.detach(), each.detach().clone())
        out = func(*args, **kwargs)
        results = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        self.made |= {memory(each) for each in results} - set(self.before)
        self.calls.append((func, args, kwargs, results))
        return out

    def undo(self) -> None:
        """Put back what was in memory before, as recording a CUDA graph changes nothing."""
        with torch.no_grad():
            for there, value in self.before.values():
                there.copy_(value)

    @torch.no_grad()
    def play(self) -> None:
        """Do all again, each result where it was when it was recorded."""
        for func, args, kwargs, results in self.calls:
            again = func(*args, **kwargs)
            fresh = [each for each in tree_leaves(again) if isinstance(each, Tensor)]
            for old, new in zip(results, fresh, strict=True):
                if memory(old) != memory(new):  # no view, and nothing done in place
                    old.copy_(new)


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def record(
    work: Callable[[], Tensor], device: torch.device, recordings: list[Recording] | None = None
) -> tuple[Callable[[], object], Tensor]:
    """In the place of `graph.record`."""
    assert device.type == "cpu"
    with Recording() as recording:
        result = work()
    recording.undo()
    if recordings is not None:
        recordings.append(recording)
    return recording.play, result


class WaitRecorder(TorchDispatchMode):
    """What asks for values, as torch notes it on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in ASKING:
            self.places.append("own.py:1")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def record_waits(_: torch.device) -> Iterator[list[str]]:
    """In the place of `graph.noting_waits`."""
    with WaitRecorder() as mode:
        yield mode.places


@pytest.fixture(autouse=True)
def _as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block for all, and no look at a factor that is known on a CPU."""
    other = torch.device("meta")
    monkeypatch.setattr(spectra, "divide", lambda clips, frames, _: divide(clips, frames, other))
    monkeypatch.setattr(spectra, "is_one", lambda _: False)
    monkeypatch.setattr(graph, "record", record)
    monkeypatch.setattr(graph, "noting_waits", record_waits)


SPLEETER = dataclasses.replace(
    spleeter_config(4, (4, 6), 64), n_fft=512, hop_length=128, segment_frames=64
)
LOW = {"low_bins": 16, "low_first": 0, "low_filters": 4}
GUIDED = dataclasses.replace(MODEL, networks="guided", guide="0" * 64)
BRANCHED = dataclasses.replace(GUIDED, **LOW)
TWO = dataclasses.replace(MODEL, stems=("bass", "vocals"), mask="sigmoid", bin_units=4)
RUNS = {
    "all losses": tiny(losses=tuple(LOSSES)),
    "bf16": tiny(precision="bf16"),
    "some stems, bins mixed": tiny(model=TWO, losses=("mag_l1",)),
    "as Spleeter": tiny(model=SPLEETER, losses=("mag_l1",)),
    "frozen norms": tiny(freeze_norm=True),
    "guided": tiny(model=GUIDED, losses=("mse", "perceptual")),
    "guided, with a branch": tiny(model=BRANCHED, losses=("mse", "mel_mse")),
    "the branch alone": tiny(model=BRANCHED, losses=("l1",), part="low"),
}


def build_module(config: TrainConfig) -> SeparationModule:
    """The module of a run, with what is otherwise done before its steps."""
    torch.manual_seed(1)
    first = None
    if config.model.networks == "guided":
        first = Guided(config.model)
        first.attach(UNet(GUIDE))
    module = SeparationModule(config, first)
    for network in module.networks.values():
        module._mode(network)
    return module


def clips_of(config: TrainConfig, step: int, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(step)
    shape = (config.batch_size, len(config.stems), 2, config.clip_samples)
    return (torch.randn(shape, generator=generator) / 10).to(device)


def mixed_precision(config: TrainConfig, device: str = "cpu") -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, config.precision == "bf16")


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_step_equals_the_step_itself(name: str) -> None:
    config = RUNS[name]
    eager, module = build_module(config), build_module(config)
    trained = [each for each in module.networks.parameters() if each.requires_grad]
    recorded = graph.RecordedStep(module.scaled_losses, trained)
    optimizers = [each.configure_optimizers() for each in (eager, module)]
    for step in range(graph.WARM_UP + 3):
        clips = clips_of(config, step)
        optimizers[0].zero_grad()
        with mixed_precision(config):
            expected = eager.scaled_losses(clips)
        expected.sum().backward()  # type: ignore[no-untyped-call]
        with mixed_precision(config):
            values = recorded(clips)
        assert (recorded._play is not None) == (step >= graph.WARM_UP)
        assert torch.equal(values, expected)
        for optimizer in optimizers:
            optimizer.step()
        optimizers[1].zero_grad()  # must not matter
    for (key, ours), theirs in zip(
        module.state_dict().items(), eager.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), key


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_step_reads_the_same_memory_each_time(name: str) -> None:
    config, recordings = RUNS[name], list[Recording]()
    module, clips = build_module(config), clips_of(RUNS[name], 0)
    step = graph.RecordedStep(module.scaled_losses, module.networks.parameters())
    with mixed_precision(config):
        step(clips)  # what is made once is there by now
        for _ in range(2):
            record(lambda: step._eager(clips), clips.device, recordings)
    first, second = (set(each.before) for each in recordings)
    assert first == second
    assert first > {memory(each) for each in step.parameters if each.requires_grad}
    assert len(recordings[0].calls) == len(recordings[1].calls) > 50


@pytest.mark.parametrize("name", RUNS)
def test_a_step_reads_no_value_from_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is in the tensors of the device "meta" nobody can know.
    config, module = RUNS[name], build_module(RUNS[name])
    module._scale_values = [1.0] * len(config.losses)
    for network in module.networks.values():
        if isinstance(network, Guided):
            network.guide_output(
                torch.ones(1, 2, MODEL.bins, 32)
            )  # its twin is made at the first step
    module.to("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    losses = module.scaled_losses(clips_of(config, 0, "meta"))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses.device.type == "meta"
    trained = [each for each in module.networks.parameters() if each.requires_grad]
    assert trained
    assert all(each.grad is not None and each.grad.is_meta for each in trained)


def test_a_run_of_recorded_steps_equals_one_without(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(losses=("l1", "mse"), max_steps=10, valid_every=5)
    plain = run(tmp_path / "plain", config)
    monkeypatch.setattr(SeparationModule, "records_steps", lambda _: True)
    with pytest.raises(TrainingError, match="interrupted after step 5"):
        run(tmp_path / "recorded", config, callbacks=[At(4, interrupt)])
    assert run(tmp_path / "recorded", config, resume=True) == plain
    assert log(tmp_path / "recorded")[-1]["step"] == 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_replays_one_graph_with_the_results_of_steps(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    graphs: list[object] = []

    def counted(work: Callable[[], Tensor], device: torch.device) -> object:
        graphs.append(record_graph(work, device))
        return graphs[-1]

    monkeypatch.setattr(graph, "record", counted)
    config = tiny(losses=("mse", "perceptual"), max_steps=8, valid_every=4, precision=precision)
    gpu = Machine("gpu", workers=1, resident=True)
    recorded = run(tmp_path / "recorded", config, machine=gpu)
    assert len(graphs) == 1
    monkeypatch.setattr(SeparationModule, "records_steps", lambda _: False)
    for ours, theirs in zip(recorded, run(tmp_path / "plain", config, machine=gpu), strict=True):
        assert ours == pytest.approx(theirs, rel=0.02)


def test_a_recorded_loss_that_is_not_finite_stops_the_run(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module: Any) -> None:
        for parameter in module.network("l1").parameters():
            parameter.data.fill_(float("nan"))

    monkeypatch.setattr(SeparationModule, "records_steps", lambda _: True)
    with pytest.raises(TrainingError, match="loss l1 became nan at step 4, clips 8 to 9"):
        run(tmp_path, tiny(max_steps=8), callbacks=[At(4, broken)])


# Found out beforehand, or by a recording that fails.
@pytest.mark.parametrize("noted", [True, False])
def test_a_loss_that_reads_values_is_trained_without_a_recording(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, noted: bool
) -> None:
    tried: list[object] = []

    def counted(work: Callable[[], Tensor], device: torch.device) -> object:
        tried.append(work)
        return record(work, device)

    monkeypatch.setattr(graph, "record", counted)
    if not noted:
        monkeypatch.setattr(graph, "noting_waits", noting_waits)
    config = tiny()
    eager, module = build_module(config), build_module(config)
    for each in (eager, module):
        (loss,) = each.losses.values()

        def asking(*parts: Tensor, loss: Any = loss) -> Tensor:
            return loss(*parts) * float(parts[0].detach().amax() >= 0)  # type: ignore[no-any-return]

        each.losses = dict.fromkeys(config.losses, asking)
    recorded = graph.RecordedStep(module.scaled_losses, module.networks.parameters())
    for step in range(graph.WARM_UP + 2):
        clips = clips_of(config, step)
        for weights in eager.parameters():
            weights.grad = None
        expected = eager.scaled_losses(clips)
        expected.sum().backward()  # type: ignore[no-untyped-call]
        assert torch.equal(recorded(clips), expected)
        for ours, theirs in zip(module.parameters(), eager.parameters(), strict=True):
            assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]
    assert recorded._play is None
    assert len(tried) == (not noted)
    why = "waits for the GPU at own.py:1" if noted else "asks for a value"
    assert [record.message.count(why) for record in caplog.records] == [1]


def test_waits_for_a_gpu_are_recorded_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])

    def switch(mode: str) -> None:
        modes.append(mode)
        if len(modes) == 2:  # torch says it once
            warnings.warn("Synchronization debug mode is a prototype", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", switch)
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        with noting_waits(torch.device("cuda")) as places:
            for _ in range(2):
                assert modes == ["default", "warn"]
                warnings.warn(graph.WAITS, stacklevel=1)
                warnings.warn("of another kind", FutureWarning, stacklevel=1)
    assert modes == ["default", "warn", "default"]
    assert [place.startswith(f"{__file__}:") for place in places] == [True, True]
    assert {str(each.message) for each in others} == {"of another kind"}


def test_no_wait_is_recorded_for_a_cpu() -> None:
    with noting_waits(torch.device("cpu")) as places:
        warnings.simplefilter("ignore")
        warnings.warn(graph.WAITS, stacklevel=1)
    assert places == []
