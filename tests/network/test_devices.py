from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest
import torch

from unetsep.errors import UnetsepError
from unetsep.network import devices
from unetsep.network.devices import keep_freed_memory, training_precision


def test_the_precision_of_training_is_chosen_for_the_accelerator() -> None:
    assert training_precision("fp16", "cpu") == "fp16"
    assert training_precision("auto", "cpu") in ("bf16", "fp32")
    assert training_precision("auto", "mps") == "fp32"


@pytest.mark.parametrize("accelerator", ["auto", "gpu"])
@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_trains_in_bf16_if_it_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, native: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    major = 8 if native else 7  # such as a T4, which emulates it
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr(devices, "choose_precision", None)
    assert training_precision("auto", accelerator) == precision


def test_a_gpu_without_kernels_in_torch_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    says = "CUDA error: no kernel image is available for execution on the device\nCompile with"

    def ones(*_: object, device: torch.device) -> None:
        assert device.type == "cuda"
        raise RuntimeError(says)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", ones)
    devices._warn_once.cache_clear()
    for _ in range(2):  # for each model that is loaded
        assert devices.usable_device("auto") == torch.device("cpu")
    (record,) = caplog.records
    assert "for execution on the device): the CPU is used" in record.getMessage()
    with pytest.raises(UnetsepError, match=r"device cuda was asked for but .*no kernel image"):
        devices.usable_device("cuda")
    says = "CUDA error: out of memory"
    for device in ("auto", "cuda"):
        with pytest.raises(RuntimeError, match="out of memory"):
            devices.usable_device(device)
    assert devices.usable_device("cpu") == torch.device("cpu")


def test_several_gpus_are_told_apart_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    tried: list[torch.device] = []

    def no_problem(device: torch.device) -> str:
        tried.append(device)
        return ""

    monkeypatch.setattr(devices, "cuda_problem", no_problem)
    for device in ("cuda", "cuda:0", "cuda:1", torch.device("cuda", 1)):
        assert devices.usable_device(device) == tried[-1] == torch.device(device)
    with pytest.raises(UnetsepError, match="cuda:2 was asked for but the last GPU is cuda:1"):
        devices.usable_device("cuda:2")


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:01", "cpu:1", "mps:1", "gpu", ""])
def test_other_names_of_devices_are_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, mps, got"):
        devices.usable_device(device)


def test_products_are_rounded_as_requested_and_then_as_before() -> None:
    assert torch.get_float32_matmul_precision() == "highest"
    with devices.products("high"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"


def test_products_are_left_to_a_host_that_has_torchs_newer_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> str:
        raise RuntimeError("you have used mix of the legacy and new APIs")

    asked: list[str] = []
    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    with devices.products("high"):
        pass
    assert not asked


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's alone")
@pytest.mark.parametrize("largest", [2**31 - 1, 1 << 25])
def test_an_older_allocator_keeps_freed_memory_with_a_lower_threshold(
    monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    """glibc before 2.35 refuses a threshold of more than 32 MiB."""
    taken: dict[int, int] = {}

    def mallopt(parameter: int, value: int) -> int:
        if parameter == devices.M_MMAP_THRESHOLD and value > largest:
            return 0
        taken[parameter] = value
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert keep_freed_memory()
    assert taken[devices.M_MMAP_THRESHOLD] == largest
    assert taken[devices.M_TRIM_THRESHOLD] == devices.LARGE
    assert taken[devices.M_ARENA_MAX] == 1


def test_another_allocator_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not keep_freed_memory()
