"""A million songs on machines that fail: hours, money, and what failures cost, on paper.

    python benchmarks/cluster.py --json docs/research/performance/cluster.json

A simulation, event by event: slots take songs, machines fail with the songs in their slots and
restart, some songs cannot be separated at all. Seconds for each second of audio are those
measured in docs/research/performance.md; prices, failures and lengths are assumptions, options all.
It separates nothing.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import json
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

# Seconds of one CPU for each second of audio (the model `fast`, one thread, long songs), and the
# most that the default takes in comparison.
CPU_RATE, DEFAULT_FACTOR = 0.0143, 2.5
# Of one GPU in fp32, wav to wav: four songs at 640 times real time.
GPU_RATE = 1 / 640
# Bytes of a second of audio in stereo at 44.1 kHz and 16 bits.
WAV_RATE = 176_400
ATTEMPTS = 3


@dataclass(frozen=True)
class Batch:
    """What is simulated.

    Parameters
    ----------
    name
        What the table calls it.
    songs, median_seconds, spread
        How many; lengths are log-normal.
    machines, slots
        How many, and slots of each.
    rate
        Seconds of a slot for each second of audio.
    price
        Of a machine, an hour.
    sharded
        Each machine has its own shard; otherwise slots take the next song of all.
    hours_between_failures, restart_seconds
        Of one machine.
    bad_share
        Of songs that always fail; they are tried once.
    out_share
        Bytes of all stems together over those of the song as wav.
    network
        Bits a second of one machine.
    """

    name: str
    songs: int = 1_000_000
    median_seconds: float = 220.0
    spread: float = 0.35
    machines: int = 20
    slots: int = 16
    rate: float = CPU_RATE * DEFAULT_FACTOR
    price: float = 0.64
    sharded: bool = False
    hours_between_failures: float = 100.0
    restart_seconds: float = 300.0
    bad_share: float = 1e-3
    out_share: float = 4.0
    network: float = 10e9
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """The result of a simulation.

    Parameters
    ----------
    hours
        From the first song to the last.
    machine_hours, dollars
        While there was work for the machine; cost.
    separated, failed, lost
        Songs.
    repeated
        Tries that a failure of a machine ended.
    wasted_share
        Of the slots' time: tries that were lost, and restarts.
    machine_failures
        How many.
    network_share
        Of each machine's network, while it works: song in, stems out, stems read back.
    terabytes
        Of all stems.
    """

    hours: float
    machine_hours: float
    dollars: float
    separated: int
    failed: int
    lost: int
    repeated: int
    wasted_share: float
    machine_failures: int
    network_share: float
    terabytes: float


class Machine:
    """Times at which one machine fails, in order, drawn on demand."""

    def __init__(self, batch: Batch, random_: random.Random) -> None:
        self._mean = batch.hours_between_failures * 3600
        self._random = random_
        self.failures: list[float] = []

    def next_failure(self, begin: float) -> float:
        """The first failure after a time."""
        while not self.failures or self.failures[-1] <= begin:
            last = self.failures[-1] if self.failures else 0.0
            self.failures.append(last + self._random.expovariate(1 / self._mean))
        return self.failures[bisect.bisect_right(self.failures, begin)]


@dataclass
class Queue:
    """Songs that wait, and those whose machine failed, from the time of the failure."""

    songs: deque[int] = field(default_factory=deque)
    returned: list[tuple[float, int]] = field(default_factory=list)

    def take(self, when: float) -> int | None:
        """The next song at a time, if there is one."""
        if self.returned and self.returned[0][0] <= when:
            return heapq.heappop(self.returned)[1]
        return self.songs.popleft() if self.songs else None


def simulate(batch: Batch) -> Outcome:
    """Simulate a batch.

    Returns
    -------
    Outcome
        Every song is separated, failed or lost, once.
    """
    draw = random.Random(batch.seed)
    lengths = [
        batch.median_seconds * draw.lognormvariate(0, batch.spread) for _ in range(batch.songs)
    ]
    bad = [draw.random() < batch.bad_share for _ in range(batch.songs)]
    machines = [Machine(batch, draw) for _ in range(batch.machines)]
    if batch.sharded:
        queues = [Queue() for _ in machines]
        for song in range(batch.songs):
            queues[draw.randrange(batch.machines)].songs.append(song)
    else:
        queues = [Queue(deque(range(batch.songs)))] * batch.machines
    free = [(0.0, m, s) for m in range(batch.machines) for s in range(batch.slots)]
    heapq.heapify(free)
    ends = [0.0] * batch.machines
    tries = bytearray(batch.songs)
    separated = failed = repeated = 0
    busy = waste = 0.0
    while free:
        begin, machine, slot = heapq.heappop(free)
        queue = queues[machine]
        song = queue.take(begin)
        if song is None:
            if queue.returned:  # a song whose machine is about to fail: this slot waits for it
                heapq.heappush(free, (queue.returned[0][0], machine, slot))
            continue
        tries[song] += 1
        end = begin + lengths[song] * batch.rate
        failure = machines[machine].next_failure(begin)
        if failure < end:
            # A song whose workers failed repeatedly counts as the cause.
            if tries[song] < ATTEMPTS:
                heapq.heappush(queue.returned, (failure, song))
            repeated += 1
            waste += failure - begin + batch.restart_seconds
            busy += failure - begin + batch.restart_seconds
            end = failure + batch.restart_seconds
        else:
            failed += bad[song]
            separated += not bad[song]
            busy += end - begin
            ends[machine] = max(ends[machine], end)
        heapq.heappush(free, (end, machine, slot))
    audio = sum(lengths) * WAV_RATE
    # With one queue all machines are paid for until the last song ends.
    paid = sum(ends) if batch.sharded else max(ends) * batch.machines
    bits = audio * (1 + 2 * batch.out_share) * 8
    return Outcome(
        hours=max(ends) / 3600,
        machine_hours=paid / 3600,
        dollars=paid / 3600 * batch.price,
        separated=separated,
        failed=failed,
        lost=batch.songs - separated - failed,
        repeated=repeated,
        wasted_share=waste / busy,
        machine_failures=sum(
            failure < end
            for machine, end in zip(machines, ends, strict=True)
            for failure in machine.failures
        ),
        network_share=bits / (paid * batch.network),
        terabytes=audio * batch.out_share / 1e12,
    )


CPU = Batch("20 machines of 16 CPUs, one queue")
BATCHES = (
    Batch("1 machine of 2 CPUs", machines=1, slots=2, price=0.08),
    CPU,
    replace(CPU, name="the same, shards", sharded=True),
    replace(CPU, name="the same, each fails every 2 hours", hours_between_failures=2.0),
    # A slot for each GPU: reading and writing take most of its time.
    Batch("20 GPUs, one queue", slots=1, rate=GPU_RATE * DEFAULT_FACTOR, price=3.0),
)


def table(results: Sequence[tuple[Batch, Outcome]]) -> str:
    """Rows of Markdown."""
    lines = [
        "| a million songs on | time | machine hours | cost | repeated | wasted | network |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {batch.name} | {out.hours:,.1f} h | {out.machine_hours:,.0f} | ${out.dollars:,.0f} | "
        f"{out.repeated:,} songs | {out.wasted_share:.2%} | {out.network_share:.0%} |"
        for batch, out in results
    ]
    return "\n".join(lines)


def main() -> None:
    """Simulate all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for batch in BATCHES:
        sized = replace(batch, songs=options.songs, seed=options.seed)
        results.append((sized, simulate(sized)))
    print(table(results))
    if options.json:
        rows = [{"batch": asdict(batch), "outcome": asdict(out)} for batch, out in results]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
