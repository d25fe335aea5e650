"""Mooncake's own figures: its transfer engine over tcp between two processes on this host.

    python mooncake_peer.py

Its shared-memory transport belongs to a second engine, TENT, that the published wheels are built without: they take
any protocol's name and then use tcp.
"""

import argparse
import importlib.metadata
import os
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any, Callable

import figures
import workload
from figures import Cannot, Figure, Peer, PeerError, Sample
from second_process import SecondProcess, TargetMemory, check, serve
from workload import numpy

DISTRIBUTION = "mooncake-transfer-engine-non-cuda"

# With its defaults the engine rejects a batch of more than some thousand writes, and opens a connection for each.
SETTINGS = {
    "MC_TCP_ENABLE_CONNECTION_POOL": "1",
    "MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER": "65535",
    "MC_TCP_MAX_PENDING_ADMISSIONS_PER_PEER": "65535",
    "MC_TCP_ADMISSION_TIMEOUT_MS": "60000",
    "MC_TRANSFER_TIMEOUT": "60",
}
NOTIFICATION_WAIT_SECONDS = 10.0
UNKNOWN_TRANSPORT = "no such transport"


class Engine:
    """A transfer engine, and the name under which the other process reaches it."""

    def __init__(self) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("MC_LOG_LEVEL", "ERROR")
        try:
            from mooncake import engine
        except ImportError as error:
            raise PeerError(
                f"Mooncake cannot be loaded ({error}): run `cargo xtask setup --bench`; "
                "a missing libibverbs.so.1 is Debian's libibverbs1, libcurl.so.4 is libcurl4, libnuma.so.1 is libnuma1"
            ) from None
        self.module = engine
        self.transfer = engine.TransferEngine()
        status = self.transfer.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "")
        if status != 0:
            raise PeerError(f"Mooncake's engine does not start: initialize returned {status}; see its log above")
        self.name = f"127.0.0.1:{self.transfer.get_rpc_port()}"

    def register(self, memory: numpy.ndarray) -> None:
        status = self.transfer.register_memory(memory.ctypes.data, memory.nbytes)
        if status != 0:
            raise PeerError(f"Mooncake does not register {memory.nbytes} bytes: {status}; see its log above")


def target_process(pipe: Connection) -> None:
    """The process that is written to; the engine's threads receive."""
    engine = Engine()
    memory = TargetMemory()
    engine.register(memory.bytes)

    def count_notifications(expected: int) -> int:
        deadline = time.perf_counter() + NOTIFICATION_WAIT_SECONDS
        count = 0
        while count < expected and time.perf_counter() < deadline:
            count += len(engine.transfer.get_notifies())
        return count

    requests = memory.requests() | {
        "introduce": lambda: (engine.name, memory.address),
        "count_notifications": count_notifications,
    }
    serve(pipe, requests)


class Initiator:
    """The process that writes."""

    def __init__(self) -> None:
        self.target = SecondProcess(target_process)
        self.engine = Engine()
        self.memory = workload.random_memory()
        self.engine.register(self.memory)
        self.target_name, self.target_address = self.target.ask("introduce")
        block_bytes = workload.BLOCK_BYTES
        self.source = self.memory.ctypes.data
        self.local = [self.source + int(n) * block_bytes for n in workload.local_blocks()]
        self.remote = [self.target_address + int(n) * block_bytes for n in workload.remote_blocks()]
        self.lengths = [block_bytes] * workload.BLOCKS

    def cannot(self) -> list[tuple[str, str]]:
        """Writes over shared memory, in so far as the wheel has no engine that knows them.

        Only TENT looks at a transport's name, and raises ValueError at one that it does not know.
        """
        try:
            self._write_front(64, UNKNOWN_TRANSPORT)
        except ValueError:
            return [("shm", "this wheel has TENT; the program does not measure it yet: extend mooncake_peer.py")]
        return [("shm", "the wheel is built without TENT, the engine that has a shared-memory transport")]

    def _write_front(self, length_bytes: int, transport: str = "") -> None:
        transfer = self.engine.transfer
        status = transfer.transfer_sync_write(
            self.target_name, self.source, self.target_address, length_bytes, transport
        )
        if status != 0:
            raise Cannot(f"a write of {length_bytes} bytes returned {status}; see its log above")

    def _write_notified(self) -> None:
        module = self.engine.module
        status = self.engine.transfer.transfer_sync(
            self.target_name, self.source, self.target_address, workload.BLOCK_BYTES,
            module.TransferOpcode.Write, module.TransferNotify("bench", "written"),
        )
        if status != 0:
            raise Cannot(f"a write with notification returned {status}; see its log above")

    def _write_blocks(self) -> None:
        self._write_batch(self.local, self.remote, self.lengths)

    def _write_batch(self, local: list[int], remote: list[int], lengths: list[int]) -> None:
        status = self.engine.transfer.batch_transfer_sync_write(self.target_name, local, remote, lengths)
        if status != 0:
            raise Cannot(f"one batch of {len(lengths)} writes returned {status}; see its log above")

    def _bulk(
        self, write: Callable[[], None], length_bytes: int, check_request: tuple, clear_bytes: int | None = None
    ) -> Sample:
        self.target.ask("clear", clear_bytes or length_bytes)
        cpu_start = self.target.cpu_seconds()
        start = time.perf_counter()
        write()
        wall_seconds = time.perf_counter() - start
        cpu_seconds = self.target.cpu_seconds() - cpu_start
        check(self.target.ask(*check_request))
        return Sample.of_bytes(length_bytes, wall_seconds, cpu_seconds)

    def write_large(self) -> Sample:
        length = workload.LARGE_BYTES
        return self._bulk(lambda: self._write_front(length), length, ("check_front", length))

    def write_scattered(self) -> Sample:
        return self._bulk(self._write_blocks, workload.MEMORY_BYTES, ("check_blocks",))

    def write_curve(self, block_bytes: int) -> Sample:
        """Plain writes of one size, one after the other."""
        times = workload.curve_writes(block_bytes)

        def write() -> None:
            for _ in range(times):
                self._write_front(block_bytes)

        return self._bulk(write, block_bytes * times, ("check_front", block_bytes), block_bytes)

    def list_curve(self, block_bytes: int) -> Sample:
        """One batch of scattered blocks of one size."""
        blocks = workload.LARGE_BYTES // block_bytes
        local = [self.source + int(n) * block_bytes for n in workload.local_blocks(blocks)]
        remote = [self.target_address + int(n) * block_bytes for n in workload.remote_blocks(blocks)]
        lengths = [block_bytes] * blocks
        return self._bulk(
            lambda: self._write_batch(local, remote, lengths), workload.LARGE_BYTES,
            ("check_blocks", block_bytes, blocks),
        )

    def write_small(self) -> Sample:
        return self._small(lambda: self._write_front(workload.BLOCK_BYTES))

    def write_small_notified(self) -> Sample:
        """Until the call returns, which is when the target's engine has taken the notification."""
        sample = self._small(self._write_notified)
        count = self.target.ask("count_notifications", workload.SMALL_WRITES)
        if count != workload.SMALL_WRITES:
            raise PeerError(f"of {workload.SMALL_WRITES} notifications {count} arrived: the figure means nothing")
        return sample

    def _small(self, write: Callable[[], None]) -> Sample:
        self.target.ask("clear", workload.BLOCK_BYTES)
        seconds = []
        for _ in range(workload.SMALL_WRITES):
            start = time.perf_counter()
            write()
            seconds.append(time.perf_counter() - start)
        check(self.target.ask("check_front", workload.BLOCK_BYTES))
        return Sample(statistics.median(seconds) * 1e6)


def open_peer(_options: argparse.Namespace) -> Peer:
    initiator = Initiator()
    return Peer(
        name="Mooncake",
        version=importlib.metadata.version(DISTRIBUTION),
        figures=[
            Figure("write_large", "tcp: 64 MiB write", "GB/s", initiator.write_large),
            Figure("write_small", "tcp: 4 KiB write", "us", initiator.write_small),
            Figure("write_small_notified", "tcp: 4 KiB write with notification", "us",
                   initiator.write_small_notified),
            Figure("write_scattered", "tcp: 81,920 scattered 4 KiB blocks, one batch", "GB/s",
                   initiator.write_scattered),
            *figures.curves(initiator.write_curve, initiator.list_curve),
        ],
        settings={name: os.environ.get(name, "not set") for name in SETTINGS},
        cannot=initiator.cannot(),
    )


def main() -> int:
    return figures.run(open_peer, figures.arguments(__doc__.splitlines()[0]).parse_args())


if __name__ == "__main__":
    sys.exit(main())
