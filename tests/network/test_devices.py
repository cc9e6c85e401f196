from __future__ import annotations

import pytest
import torch

from unetsep.network import devices
from unetsep.network.devices import pick_precision


def test_the_precision_of_training_is_chosen_for_the_accelerator() -> None:
    assert pick_precision("fp16", "cpu") == "fp16"
    assert pick_precision("auto", "cpu") in ("bf16", "fp32")
    assert pick_precision("auto", "mps") == "fp32"


@pytest.mark.parametrize("accelerator", ["auto", "gpu"])
@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_trains_in_bf16_if_it_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, native: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: native)
    monkeypatch.setattr(devices, "choose_precision", None)
    assert pick_precision("auto", accelerator) == precision
