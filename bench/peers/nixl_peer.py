"""NIXL's own figures: its UCX backend between two processes on this host.

    python nixl_peer.py --fabric shm|tcp|default

`default` is what one gets without settings: on one host UCX writes with CMA, straight into the target's memory, and
sends notifications over tcp. `shm` lets it use nothing but shared memory. That takes a backend without error handling:
with it, UCX finds no such transport for notifications, and the backend does not start. UCX_PROTO_INFO=y shows what
was chosen.
"""

import argparse
import importlib.metadata
import os
import statistics
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Callable

import figures
import workload
from figures import Cannot, Figure, Peer, PeerError, Sample
from second_process import SecondProcess, TargetMemory, check, serve
from workload import numpy

TRANSFER_WAIT_SECONDS = 60.0
NOTIFICATION_WAIT_SECONDS = 10.0
INITIATOR, TARGET = "initiator", "target"
QUESTION, ANSWER = b"question", b"answer"


# While the target attends, it calls UCX this often. With fewer cores than busy threads a pause is faster than
# spinning, but for what goes over tcp in small pieces, each of which waits for the target.
PAUSE_SECONDS = 0.0002
NO_PAUSE = 0.0
# A plain write of less waits more for the target's answer than for its own bytes.
LARGE_WRITE_BYTES = 1 << 20


@dataclass(frozen=True)
class Fabric:
    """How UCX is set up, and what is best for the target to do meanwhile."""

    ucx: dict[str, str]
    error_handling: str
    small_pause_seconds: float
    notified_pause_seconds: float


FABRICS = {
    "shm": Fabric({"UCX_TLS": "shm"}, "none", PAUSE_SECONDS, PAUSE_SECONDS),
    "tcp": Fabric({"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo"}, "peer", NO_PAUSE, NO_PAUSE),
    "default": Fabric({}, "peer", PAUSE_SECONDS, NO_PAUSE),
}


class Agent:
    """A NIXL agent with a UCX backend."""

    def __init__(self, name: str, fabric: Fabric, progress_thread: bool) -> None:
        os.environ.update(fabric.ucx)
        os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")
        os.environ.setdefault("UCX_LOG_LEVEL", "error")
        try:
            import nixl
        except ImportError as error:
            raise PeerError(f"NIXL cannot be loaded ({error}): run `cargo xtask setup --bench`") from None
        config = nixl.nixl_agent_config(enable_prog_thread=progress_thread, backends=[])
        self.nixl = nixl.nixl_agent(name, config)
        try:
            self.nixl.create_backend("UCX", {"ucx_error_handling_mode": fabric.error_handling})
        except Exception as error:
            raise PeerError(f"NIXL's UCX backend does not start with {fabric} ({type(error).__name__})") from None

    def register(self, memory: numpy.ndarray) -> None:
        descriptors = self.nixl.get_reg_descs([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
        self.nixl.register_memory(descriptors)

    def descriptors(self, address: int, offsets: numpy.ndarray, length_bytes: int) -> Any:
        """A descriptor for each offset."""
        rows = numpy.zeros((offsets.size, 3), dtype=numpy.uint64)
        rows[:, 0] = offsets + numpy.uint64(address)
        rows[:, 1] = length_bytes
        return self.nixl.get_xfer_descs(rows, "DRAM")

    def count_notifications(self) -> int:
        """How many have come since the last call. Calling it makes progress, too."""
        return sum(len(messages) for messages in self.nixl.get_new_notifs().values())

    def await_notification(self) -> None:
        """Spins until the other agent's notification is there."""
        deadline = time.perf_counter() + TRANSFER_WAIT_SECONDS
        while self.count_notifications() == 0:
            if time.perf_counter() > deadline:
                raise PeerError(f"no notification came within {TRANSFER_WAIT_SECONDS:.0f} s")


def target_process(pipe: Connection, fabric: Fabric, progress_thread: bool) -> None:
    """The process that is written to."""
    agent = Agent(TARGET, fabric, progress_thread)
    memory = TargetMemory()
    agent.register(memory.bytes)
    pause_seconds: float | None = None
    count = 0

    def attend(seconds: float | None) -> None:
        nonlocal pause_seconds, count
        pause_seconds, count = seconds, 0

    def progress() -> float | None:
        """UCX moves some transfers only while the target calls it. Without that, it sleeps and takes no CPU time."""
        nonlocal count
        if pause_seconds is not None:
            count += agent.count_notifications()
        return pause_seconds

    def await_notifications(expected: int) -> int:
        """Those since it began to attend, when they are all there or time is up."""
        nonlocal count
        deadline = time.perf_counter() + NOTIFICATION_WAIT_SECONDS
        while count < expected and time.perf_counter() < deadline:
            count += agent.count_notifications()
        return count

    def answer_notifications(count: int) -> None:
        pipe.send((None, None))  # The initiator starts when this is on its way.
        for _ in range(count):
            agent.await_notification()
            agent.nixl.send_notif(INITIATOR, ANSWER)

    requests = memory.requests() | {
        "introduce": lambda: (agent.nixl.get_agent_metadata(), memory.address),
        "meet": lambda metadata: agent.nixl.add_remote_agent(metadata) and None,
        "attend": attend,
        "await_notifications": await_notifications,
        "answer_notifications": answer_notifications,
    }
    serve(pipe, requests, progress)


class Initiator:
    """The process that writes, and its prepared transfers."""

    def __init__(self, fabric: Fabric, progress_thread: bool) -> None:
        self.fabric = fabric
        self.target = SecondProcess(target_process, fabric, progress_thread)
        self.agent = Agent(INITIATOR, fabric, progress_thread)
        self.memory = workload.random_memory()
        self.agent.register(self.memory)
        metadata, self.target_address = self.target.ask("introduce")
        self.agent.nixl.add_remote_agent(metadata)
        self.target.ask("meet", self.agent.nixl.get_agent_metadata())
        front = numpy.zeros(1, dtype=numpy.uint64)
        block_bytes = numpy.uint64(workload.BLOCK_BYTES)
        local, remote = workload.local_blocks() * block_bytes, workload.remote_blocks() * block_bytes
        self.large = self._prepare(front, front, workload.LARGE_BYTES, b"")
        self.large_notified = self._prepare(front, front, workload.LARGE_BYTES, QUESTION)
        self.small = self._prepare(front, front, workload.BLOCK_BYTES, b"")
        self.small_notified = self._prepare(front, front, workload.BLOCK_BYTES, QUESTION)
        self.scattered = self._prepare(local, remote, workload.BLOCK_BYTES, b"")
        # Of the curves, by figure; made when first asked for.
        self.curve_transfers: dict[str, Any] = {}

    def _prepare(self, local: numpy.ndarray, remote: numpy.ndarray, length_bytes: int, notification: bytes) -> Any:
        return self.agent.nixl.initialize_xfer(
            "WRITE",
            self.agent.descriptors(self.memory.ctypes.data, local, length_bytes),
            self.agent.descriptors(self.target_address, remote, length_bytes),
            TARGET,
            notification,
        )

    def _complete(self, transfer: Any) -> None:
        """Posts a prepared transfer and spins until it is done, the only way that there is."""
        nixl = self.agent.nixl
        state = nixl.transfer(transfer)
        deadline = time.perf_counter() + TRANSFER_WAIT_SECONDS
        while state != "DONE":
            if state == "ERR":
                raise Cannot("NIXL reported ERR for the transfer")
            if time.perf_counter() > deadline:
                raise PeerError(f"a transfer was not done within {TRANSFER_WAIT_SECONDS:.0f} s")
            state = nixl.check_xfer_state(transfer)

    def _bulk(
        self, transfer: Any, length_bytes: int, check_request: tuple, times: int = 1,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> Sample:
        """Moves that many bytes as that many transfers, one after the other."""
        self.target.ask("clear", length_bytes // times)
        self.target.ask("attend", pause_seconds)
        cpu_start = self.target.cpu_seconds()
        start = time.perf_counter()
        for _ in range(times):
            self._complete(transfer)
        wall_seconds = time.perf_counter() - start
        cpu_seconds = self.target.cpu_seconds() - cpu_start
        self.target.ask("attend", None)
        check(self.target.ask(*check_request))
        return Sample.of_bytes(length_bytes, wall_seconds, cpu_seconds)

    def write_large(self) -> Sample:
        return self._bulk(self.large, workload.LARGE_BYTES, ("check_front", workload.LARGE_BYTES))

    def write_large_answered(self) -> Sample:
        """Until the target's program has seen each notification and its own has come back, both programs spinning."""
        times = workload.ANSWERED_WRITES
        self.target.ask("clear", workload.LARGE_BYTES)
        self.target.ask("answer_notifications", times)
        start = time.perf_counter()
        for _ in range(times):
            self._complete(self.large_notified)
            self.agent.await_notification()
        wall_seconds = time.perf_counter() - start
        self.target.answer("answer_notifications")
        check(self.target.ask("check_front", workload.LARGE_BYTES))
        return Sample(workload.LARGE_BYTES * times / wall_seconds / 1e9)

    def write_scattered(self) -> Sample:
        return self._bulk(self.scattered, workload.MEMORY_BYTES, ("check_blocks",))

    def write_curve(self, block_bytes: int) -> Sample:
        """Plain writes of one size, one after the other."""
        key = f"write_{block_bytes}"
        if key not in self.curve_transfers:
            front = numpy.zeros(1, dtype=numpy.uint64)
            self.curve_transfers[key] = self._prepare(front, front, block_bytes, b"")
        times = workload.curve_writes(block_bytes)
        pause = self.fabric.small_pause_seconds if block_bytes < LARGE_WRITE_BYTES else PAUSE_SECONDS
        return self._bulk(self.curve_transfers[key], block_bytes * times, ("check_front", block_bytes), times, pause)

    def list_curve(self, block_bytes: int) -> Sample:
        """One transfer of scattered blocks of one size."""
        key, blocks = f"list_{block_bytes}", workload.LARGE_BYTES // block_bytes
        if key not in self.curve_transfers:
            local, remote = workload.local_blocks(blocks), workload.remote_blocks(blocks)
            scale = numpy.uint64(block_bytes)
            self.curve_transfers[key] = self._prepare(local * scale, remote * scale, block_bytes, b"")
        check_request = ("check_blocks", block_bytes, blocks)
        return self._bulk(self.curve_transfers[key], workload.LARGE_BYTES, check_request)

    def write_small(self) -> Sample:
        """Until the initiator knows that it is done; the target's program learns nothing."""
        return self._small(self.small, 0, self.fabric.small_pause_seconds)

    def write_small_notified(self) -> Sample:
        """The same, and the target's program learns of it, sooner or later."""
        return self._small(self.small_notified, workload.SMALL_WRITES, self.fabric.notified_pause_seconds)

    def _small(self, transfer: Any, notifications: int, pause_seconds: float) -> Sample:
        self.target.ask("clear", workload.BLOCK_BYTES)
        self.target.ask("attend", pause_seconds)
        median = self._median_microseconds(lambda: self._complete(transfer))
        count = self.target.ask("await_notifications", notifications)
        self.target.ask("attend", None)
        if count != notifications:
            raise PeerError(f"of {notifications} notifications {count} arrived: the figure means nothing")
        check(self.target.ask("check_front", workload.BLOCK_BYTES))
        return Sample(median)

    def write_small_answered(self) -> Sample:
        """Until the target's program has seen the notification and its own has come back."""
        self.target.ask("clear", workload.BLOCK_BYTES)
        self.target.ask("answer_notifications", workload.SMALL_WRITES)

        def there_and_back() -> None:
            self._complete(self.small_notified)
            self.agent.await_notification()

        median = self._median_microseconds(there_and_back)
        self.target.answer("answer_notifications")
        check(self.target.ask("check_front", workload.BLOCK_BYTES))
        return Sample(median)

    @staticmethod
    def _median_microseconds(write: Callable[[], None]) -> float:
        seconds = []
        for _ in range(workload.SMALL_WRITES):
            start = time.perf_counter()
            write()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds) * 1e6


def open_peer(options: argparse.Namespace) -> Peer:
    fabric = FABRICS[options.fabric]
    initiator = Initiator(fabric, options.progress_thread)
    name = options.fabric
    return Peer(
        name="NIXL",
        version=importlib.metadata.version("nixl"),
        figures=[
            Figure("write_large", f"{name}: 64 MiB write", "GB/s", initiator.write_large),
            Figure("write_large_answered", f"{name}: 64 MiB write, notification answered", "GB/s",
                   initiator.write_large_answered),
            Figure("write_small", f"{name}: 4 KiB write", "us", initiator.write_small),
            Figure("write_small_notified", f"{name}: 4 KiB write with notification", "us",
                   initiator.write_small_notified),
            Figure("write_small_answered", f"{name}: 4 KiB write, notification answered", "us",
                   initiator.write_small_answered),
            Figure("write_scattered", f"{name}: 81,920 scattered 4 KiB blocks, one transfer", "GB/s",
                   initiator.write_scattered),
            *figures.curves(initiator.write_curve, initiator.list_curve),
        ],
        settings=fabric.ucx | {
            "ucx_error_handling_mode": fabric.error_handling,
            "progress_thread": str(options.progress_thread).lower(),
        },
    )


def main() -> int:
    parser = figures.arguments(__doc__.splitlines()[0])
    parser.add_argument("--fabric", choices=sorted(FABRICS), default="shm", help="what UCX may use (default shm)")
    parser.add_argument("--progress-thread", action="store_true", help="let NIXL's own thread make progress, too")
    return figures.run(open_peer, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
