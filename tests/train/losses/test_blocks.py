"""Blocks: in order for any number of threads, which does not change."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from tests.train.synthetic import MODEL
from unetsep.dsp.threads import thread_count
from unetsep.network.unet import UNet
from unetsep.train.losses.blocks import BLOCK_FRAMES, Block, divide, work_on
from unetsep.train.losses.functions import LOSSES, build_loss
from unetsep.train.losses.spectra import blockwise_loss, spectra

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_blocks_cover_every_frame_of_every_clip_once() -> None:
    frames = 2 * BLOCK_FRAMES + 3
    seen = torch.zeros(3, frames)
    for block in divide(3, frames, CPU):
        seen[block] += 1
    assert bool((seen == 1).all())
    assert divide(3, frames, torch.device("meta")) == [(slice(0, 3), slice(0, frames))]


def test_results_come_in_order_and_the_number_of_threads_stays() -> None:
    torch.set_num_threads(3)
    blocks = divide(5, 40, CPU)
    names: set[str] = set()
    inner: set[int] = set()

    def work(block: Block) -> Block:
        names.add(threading.current_thread().name)
        inner.add(torch.get_num_threads())
        return block

    assert work_on(blocks, work) == blocks
    assert inner == {1}
    assert all(name.startswith("block") for name in names)
    # One block, as on an accelerator, needs no thread.
    assert work_on(blocks[:1], lambda _: threading.current_thread()) == [threading.main_thread()]
    born: list[int] = []
    thread = threading.Thread(target=lambda: born.append(thread_count()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == 3
    assert born == [3]
    torch.set_num_threads(1)
    assert work_on(blocks, lambda _: threading.current_thread()) == [threading.main_thread()] * 15


def test_an_error_in_a_block_is_raised() -> None:
    torch.set_num_threads(2)

    def fail(block: Block) -> None:
        raise OSError(f"block {block[0].start}")

    with pytest.raises(OSError, match="block 0"):
        work_on(divide(2, 8, CPU), fail)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_do_not_depend_on_the_number_of_threads(name: str) -> None:
    clips = torch.randn(2, 4, 2, 512 + 40 * 128, generator=torch.Generator().manual_seed(1))
    network, loss = UNet(MODEL), build_loss(name, MODEL)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        logits = torch.ones(2, 4, 2, 64, 41, requires_grad=True)
        value = blockwise_loss(logits, network, spectra(clips, MODEL), loss)
        value.backward()
        found.append((value.detach(), logits.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
