"""Machines of a cluster, and how many slots fit on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import UnetsepError

GPU = "cuda"
# CPUs of a slot with a GPU, for decoding and encoding.
CPUS_BESIDE_GPU = 4
GROWING = "to wait for a cluster that grows on demand, start its head with --num-cpus 0"


@dataclass(frozen=True)
class ClusterMachine:
    """The CPUs and GPUs of a machine that a cluster may use."""

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
        """The needs as options of Ray's actors."""
        cpus = {"num_cpus": self.cpus}
        return cpus | {"num_gpus": 1} if self.device == GPU else cpus

    def at_most(self, machines: Sequence[ClusterMachine]) -> SlotNeeds:
        """The needs, with no more CPUs than the largest machine has.

        Used for a cluster of this machine alone: as without Ray, threads may outnumber CPUs.
        """
        return replace(self, cpus=max(1, min(self.cpus, _most_cpus(self._suitable(machines)))))

    def require_machine(self, machines: Sequence[ClusterMachine]) -> None:
        """Refuse needs that no machine meets.

        A machine without CPUs may be the head of a cluster that starts machines on demand: if
        there is no other machine, nothing is refused.

        Raises
        ------
        UnetsepError
            If there is no GPU where one is needed, or no machine is large enough.
        """
        if not any(machine.cpus for machine in machines):
            return
        candidates = self._suitable(machines)
        if not candidates:
            raise UnetsepError(f"device 'cuda' was asked for but the cluster has no GPU; {GROWING}")
        if _most_cpus(candidates) < self.cpus:
            on_gpu = self.device == GPU
            kind = "machine of the cluster with a GPU" if on_gpu else "machine of the cluster"
            raise UnetsepError(f"no {kind} has {self.cpus} CPUs: give fewer --threads; {GROWING}")

    def room(self, machines: Sequence[ClusterMachine]) -> int:
        """Number of slots that fit on the machines; at least one, for which a cluster may grow."""
        on_gpu = self.device == GPU
        slots = (min(m.cpus // self.cpus, m.gpus if on_gpu else m.cpus) for m in machines)
        return max(1, sum(slots))

    def _suitable(self, machines: Sequence[ClusterMachine]) -> list[ClusterMachine]:
        """Machines that have the device."""
        return [machine for machine in machines if machine.gpus or self.device != GPU]


def slot_device(machines: Sequence[ClusterMachine], device: str) -> str:
    """The device of slots: as requested; for ``auto`` GPUs if there are any.

    Without any machine yet, ``auto`` means the CPU. Waiting for a choice would not help: a
    cluster grows only when a slot is requested.
    """
    if device != "auto":
        return device
    return GPU if any(machine.gpus for machine in machines) else "cpu"


def cpus_beside_gpu(machines: Sequence[ClusterMachine], default: int) -> int:
    """CPUs for each GPU that every machine has, at most four; the default without GPUs."""
    shares = [machine.cpus // machine.gpus for machine in machines if machine.gpus]
    return max(1, min(CPUS_BESIDE_GPU, *shares)) if shares else default


def _most_cpus(machines: Sequence[ClusterMachine]) -> int:
    return max((machine.cpus for machine in machines), default=0)
