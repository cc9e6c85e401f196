from __future__ import annotations

import pytest

from unetsep.errors import UnetsepError
from unetsep.library.machines import ClusterMachine, SlotNeeds, cpus_beside_gpu, slot_device


def machines_of(*sizes: tuple[int, int]) -> list[ClusterMachine]:
    return [ClusterMachine(cpus, gpus) for cpus, gpus in sizes]


@pytest.mark.parametrize(
    ("sizes", "asked", "device"),
    [
        ([(8, 0), (8, 2)], "auto", "cuda"),
        ([(8, 0)], "auto", "cpu"),
        ([], "auto", "cpu"),
        ([(8, 0)], "cuda", "cuda"),
        ([(8, 2)], "cpu", "cpu"),
    ],
)
def test_slots_use_gpus_if_there_are_any_unless_a_device_is_chosen(sizes, asked, device):
    assert slot_device(machines_of(*sizes), asked) == device


@pytest.mark.parametrize(
    ("sizes", "cpus"),
    [
        ([(8, 4), (64, 0)], 2),
        ([(8, 4), (64, 4)], 2),  # as many as every machine has
        ([(64, 4)], 4),
        ([(1, 2)], 1),
        ([(8, 0)], 3),
        ([], 3),
    ],
)
def test_a_gpu_gets_its_share_of_the_cpus_but_four_at_most(sizes, cpus):
    assert cpus_beside_gpu(machines_of(*sizes), 3) == cpus


@pytest.mark.parametrize(
    ("sizes", "needs", "slots"),
    [
        ([(4, 0), (4, 0)], SlotNeeds("cpu", 3), 2),
        ([(2, 0), (7, 0)], SlotNeeds("cpu", 3), 2),
        ([(2, 0), (3, 0)], SlotNeeds("cpu", 1), 5),
        ([(8, 4), (64, 0)], SlotNeeds("cuda", 2), 4),
        ([(8, 4)], SlotNeeds("cuda", 3), 2),
        ([(8, 2), (64, 0)], SlotNeeds("cuda", 8), 1),
        ([(0, 0)], SlotNeeds("cpu", 4), 1),  # it may be about to get machines
        ([(0, 0)], SlotNeeds("cuda", 4), 1),
    ],
)
def test_the_number_of_slots_is_what_fits_on_each_machine(sizes, needs, slots):
    machines = machines_of(*sizes)
    needs.require_machine(machines)
    assert needs.room(machines) == slots


@pytest.mark.parametrize(
    ("sizes", "needs", "message"),
    [
        (
            [(2, 0), (3, 0)],
            SlotNeeds("cpu", 4),
            "no machine of the cluster has 4 CPUs: give fewer --threads",
        ),
        ([(2, 1), (8, 0)], SlotNeeds("cuda", 4), "no machine of the cluster with a GPU has 4"),
        ([(8, 0)], SlotNeeds("cuda", 1), "device 'cuda' was asked for but the cluster has no GPU"),
    ],
)
def test_needs_that_no_machine_meets_are_refused(sizes, needs, message):
    with pytest.raises(UnetsepError, match=message):
        needs.require_machine(machines_of(*sizes))


def test_threads_are_limited_to_the_cpus_of_the_largest_machine():
    assert SlotNeeds("cpu", 4).at_most(machines_of((2, 0))) == SlotNeeds("cpu", 2)
    assert SlotNeeds("cpu", 4).at_most(machines_of((8, 0))) == SlotNeeds("cpu", 4)
    # Not the machine that is largest, but the largest that has a GPU.
    assert SlotNeeds("cuda", 4).at_most(machines_of((2, 1), (8, 0))) == SlotNeeds("cuda", 2)
    assert SlotNeeds("cuda", 4).at_most([]) == SlotNeeds("cuda", 1)


def test_needs_become_resources_of_ray():
    assert SlotNeeds("cpu", 2).resources == {"num_cpus": 2}
    assert SlotNeeds("cuda", 2).resources == {"num_cpus": 2, "num_gpus": 1}
