"""Machines of a cluster, and the slots that they have room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import UnetsepError

GPU = "cuda"
# CPUs of a slot with a GPU: it decodes and encodes beside it.
CPUS_BESIDE_GPU = 4
GROWING = "a cluster that grows on demand is waited for if its head has no CPUs (--num-cpus 0)"


@dataclass(frozen=True)
class ClusterMachine:
    """What a cluster may give away of a machine."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class SlotNeeds:
    """What a slot needs of a machine.

    Parameters
    ----------
    device
        ``cuda``, or one that needs no GPU.
    cpus
        At least one.
    """

    device: str
    cpus: int

    @property
    def resources(self) -> dict[str, int]:
        """In Ray's words."""
        cpus = {"num_cpus": self.cpus}
        return cpus | {"num_gpus": 1} if self.device == GPU else cpus

    def at_most(self, machines: Sequence[ClusterMachine]) -> SlotNeeds:
        """No more CPUs than the largest machine has.

        This machine alone takes more threads than it has CPUs, as it does without Ray.
        """
        return replace(self, cpus=max(1, min(self.cpus, _most_cpus(self._suited(machines)))))

    def require_machine(self, machines: Sequence[ClusterMachine]) -> None:
        """Refuse needs that no machine meets.

        A machine that has no CPUs may only lead a cluster whose machines come when they are asked
        for: where there is no other, nothing is refused.

        Raises
        ------
        UnetsepError
            If there is no GPU where one is needed, or no machine is large enough.
        """
        if not any(machine.cpus for machine in machines):
            return
        suited = self._suited(machines)
        if not suited:
            raise UnetsepError(f"device 'cuda' was asked for but the cluster has no GPU; {GROWING}")
        if _most_cpus(suited) < self.cpus:
            on_gpu = self.device == GPU
            kind = "machine of the cluster with a GPU" if on_gpu else "machine of the cluster"
            raise UnetsepError(f"no {kind} has {self.cpus} CPUs: give fewer --threads; {GROWING}")

    def room(self, machines: Sequence[ClusterMachine]) -> int:
        """How many slots fit on the machines; one at least, for which a cluster may grow."""
        on_gpu = self.device == GPU
        return max(
            1,
            sum(
                min(machine.cpus // self.cpus, machine.gpus)
                if on_gpu
                else machine.cpus // self.cpus
                for machine in machines
            ),
        )

    def _suited(self, machines: Sequence[ClusterMachine]) -> list[ClusterMachine]:
        """Machines that have the device."""
        return [machine for machine in machines if machine.gpus or self.device != GPU]


def slot_device(machines: Sequence[ClusterMachine], device: str) -> str:
    """The device of slots: what was asked for; for ``auto`` GPUs where there are any.

    Where there is no machine yet, this means the CPU. To ask for nothing until there is a choice
    would be in vain: a cluster grows only when a slot is asked for.
    """
    if device != "auto":
        return device
    return GPU if any(machine.gpus for machine in machines) else "cpu"


def cpus_beside_gpu(machines: Sequence[ClusterMachine], default: int) -> int:
    """CPUs for each GPU, four at most: as many as every machine has; a default without GPUs."""
    shares = [machine.cpus // machine.gpus for machine in machines if machine.gpus]
    return max(1, min(CPUS_BESIDE_GPU, *shares)) if shares else default


def _most_cpus(machines: Sequence[ClusterMachine]) -> int:
    return max((machine.cpus for machine in machines), default=0)
