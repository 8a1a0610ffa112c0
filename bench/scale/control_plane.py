"""The controller with hundreds of simulated nodes, in one process: `python bench/scale/control_plane.py`.

Per number of nodes, each with two GPUs and on average four replicas, it measures what one event costs: of reconciling,
placing, and encoding for gateways, as the controller does it, without network. Medians and the worst of many events, in
milliseconds of processor time, and the memory of the table. `--plot FILE` draws how they grow.
"""

import argparse
import gc
import itertools
import statistics
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xinfer_runtime.cluster import control_events as control
from xinfer_runtime.cluster.control_state import ControlState
from xinfer_runtime.cluster.model_table import ModelTable
from xinfer_runtime.cluster.protocol import (
    Change,
    EngineSupport,
    Gpu,
    Inventory,
    NodeReport,
    ReplicaReport,
    Snapshot,
    Sync,
    decode_watch,
    encode,
)
from xinfer_runtime.errors import EngineError
from xinfer_runtime.models import ModelInfo, ModelSpec, Replica, ReplicaState

GIB = 1 << 30
PER_NODE = 4
PER_MODEL = 4
SAMPLES = 200
INFO = ModelInfo(context_length=8192, vocab_size=32000, abilities=("chat", "generate", "tools"))
ENGINES = {"llama.cpp": EngineSupport(version="0.3.36", gpu=True)}


@dataclass
class Times:
    """Seconds of each kind of event."""

    by_kind: dict[str, list[float]] = field(default_factory=dict)

    def of(self, kind: str, work: Callable[[], object]) -> None:
        start = time.process_time()
        work()
        self.by_kind.setdefault(kind, []).append(time.process_time() - start)


class Site:
    """Nodes that do what they are told when they are asked to report."""

    def __init__(self, nodes: int, times: Times) -> None:
        self.addresses = [f"tls://10.{n // 65536}.{n // 256 % 256}.{n % 256}:4000" for n in range(nodes)]
        self.numbers = {address: number for number, address in enumerate(self.addresses)}
        self.times = times
        self.state = ControlState("epoch")
        self.syncs: dict[str, Sync] = {}
        self.clock = itertools.count(1)
        self.instructions = 0

    def handle(self, kind: str, event: control.Event) -> list[control.Instruction]:
        found: list[control.Instruction] = []
        self.times.of(kind, lambda: found.extend(self.state.handle(event, float(next(self.clock)))))
        self.syncs.update({each.address: each.sync for each in found if isinstance(each, control.SendSync)})
        self.instructions += len(found)
        return found

    def report(self, kind: str, address: str, state: ReplicaState = ReplicaState.READY) -> list[control.Instruction]:
        sync = self.syncs.get(address, Sync(epoch="", generation=-1))
        error = EngineError("it crashed").info if state is ReplicaState.FAILED else None
        replicas = tuple(
            ReplicaReport(
                incarnation=want.incarnation,
                replica=Replica(
                    id=want.id,
                    uid=want.spec.uid,
                    node=address,
                    state=state,
                    address="10.0.0.1:5000",
                    token="t" * 43,
                    pid=7,
                    error=error,
                    info=INFO if state is ReplicaState.READY else None,
                    devices=want.devices,
                ),
                memory_private=GIB,
            )
            for want in sync.wants
        )
        number = self.numbers[address]
        taken = Counter(uuid for want in sync.wants for uuid in want.devices if state is ReplicaState.READY)
        gpus = tuple(
            Gpu(uuid=uuid, index=i, name="H200", memory_total=140 * GIB, memory_free=(120 - 38 * taken[uuid]) * GIB)
            for i, uuid in enumerate((f"GPU-{number}-0", f"GPU-{number}-1"))
        )
        inventory = Inventory(
            host=address,
            label=f"node-{number}",
            cpus=64,
            memory_total=512 * GIB,
            memory_available=480 * GIB,
            address=address,
            gpus=gpus,
            engines=ENGINES,
        )
        report = NodeReport(
            boot="boot",
            seq=next(self.clock),
            epoch=sync.epoch,
            generation=sync.generation,
            inventory=inventory,
            replicas=replicas,
        )
        return self.handle(kind, control.Reported(address, report))


def spec(number: int) -> ModelSpec:
    return ModelSpec(
        uid=f"model-{number}",
        name="qwen",
        replica=PER_MODEL,
        n_gpu=1,
        memory_bytes=38 * GIB,
        context_length=8192,
        created=float(number),
    )


def measure(nodes: int) -> tuple[Times, Site]:
    times = Times()
    site = Site(nodes, times)
    for address in site.addresses:
        site.report("node joins", address)
    for number in range(nodes * PER_NODE // PER_MODEL):
        site.handle("launch of 4 replicas", control.LaunchAsked(spec(number)))
    for address in site.addresses:
        site.report("replicas become ready", address)
    some = site.addresses[:: max(1, nodes // SAMPLES)]
    for address in some:
        site.report("report without news", address)
        site.handle("heartbeat", control.HeartbeatSeen(address, "boot", 0))
    for address in some:
        site.report("replicas crash", address, ReplicaState.FAILED)
        site.report("replicas come back", address)
    for _ in range(20):
        site.handle("tick", control.Ticked())
    for number in range(20):
        site.handle("scale up by one", control.ScaleAsked(f"model-{number}", PER_MODEL + 1))
    full = [address for address in site.addresses if len(site.state.replicas_on(address)) >= PER_NODE]
    for address in full[:10]:
        site.handle("full node lost, its replicas move", control.NodeLeft(address))
    encoding(site, times)
    restoring(site, times)
    return times, site


def encoding(site: Site, times: Times) -> None:
    """What a change costs towards each gateway, and a whole table when one connects."""
    snapshot = Snapshot(epoch="e", revision=0, models=site.state.statuses())
    data = b""
    for _ in range(5):
        times.of("snapshot encoded", lambda: encode(snapshot))
    data = encode(snapshot)
    table = ModelTable()
    for _ in range(5):
        times.of("snapshot taken by a gateway", lambda: table.apply(decode_watch(data)))
    for revision, status in enumerate(snapshot.models[:SAMPLES], 1):
        change = Change(revision=revision, uid=status.spec.uid, status=status)
        times.of("change encoded", lambda change=change: encode(change))
        message = encode(change)
        times.of("change taken by a gateway", lambda message=message: table.apply(decode_watch(message)))


def restoring(site: Site, times: Times) -> None:
    """A new controller reads its table, and the nodes come back at once."""
    specs = tuple(status.spec for status in site.state.statuses())
    fresh = Site(len(site.addresses), Times())
    fresh.handle("restore", control.Restored(specs))
    for address in fresh.addresses:
        fresh.report("node joins", address)
    times.by_kind["restart: all placed"] = [sum(sum(each) for each in fresh.times.by_kind.values())]
    assert not fresh.state.unplaced()


def memory_of(nodes: int) -> int:
    """Bytes of the table, with what it published."""
    gc.collect()
    tracemalloc.start()
    site = Site(nodes, Times())
    for address in site.addresses:
        site.report("", address)
    for number in range(nodes * PER_NODE // PER_MODEL):
        site.handle("", control.LaunchAsked(spec(number)))
    for address in site.addresses:
        site.report("", address)
    site.times.by_kind.clear()
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used


def rows(sizes: list[int]) -> Iterator[tuple[str, list[str], list[float]]]:
    """(what, cells, medians in ms) over the sizes."""
    found = [measure(nodes)[0].by_kind for nodes in sizes]
    for kind in found[0]:
        each = [[1000 * seconds for seconds in times[kind]] for times in found]
        medians = [statistics.median(values) for values in each]
        yield kind, [f"{m:.2f} / {max(v):.2f}" for m, v in zip(medians, each, strict=True)], medians


def plot(path: Path, sizes: list[int], medians: dict[str, list[float]], memory: list[float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4.5), width_ratios=(2, 1), layout="constrained")
    colors = pyplot.get_cmap("tab20").colors
    for color, (kind, values) in zip(itertools.cycle(colors), medians.items(), strict=False):
        left.plot(sizes, values, marker="o", markersize=4, label=kind, color=color)
    left.set(xscale="log", yscale="log", xlabel="nodes (4 replicas each)", ylabel="ms an event, median")
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.minorticks_off()
    left.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    left.grid(alpha=0.3)
    right.plot(sizes, memory, marker="o")
    right.set(xlabel="nodes (4 replicas each)", ylabel="MiB of the controller's table", ylim=(0, None))
    right.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[50, 100, 200, 500, 1000])
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    sizes: list[int] = arguments.nodes
    print(f"| median / worst, ms | {' | '.join(f'{n} nodes, {n * PER_NODE} replicas' for n in sizes)} |")
    print(f"|---|{'---|' * len(sizes)}")
    medians = {}
    for kind, cells, values in rows(sizes):
        medians[kind] = values
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)
    memory = [memory_of(nodes) / 2**20 for nodes in sizes]
    print(f"| memory of the table, MiB | {' | '.join(f'{size:.1f}' for size in memory)} |")
    if arguments.plot:
        plot(arguments.plot, sizes, medians, memory)


if __name__ == "__main__":
    main()
