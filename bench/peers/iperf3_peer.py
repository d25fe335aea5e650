"""iperf3's own figure: one stream over loopback, what the receiver counted.

    python iperf3_peer.py

iperf3 sends from one buffer into another for as long as it is told to, and looks at no content.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time

import figures
from figures import Figure, Peer, PeerError, Sample

ADDRESS = "127.0.0.1"
SECONDS = 1
# It takes no larger ones.
BUFFERS_BYTES = (4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
START_WAIT_SECONDS = 5.0
RUN_WAIT_SECONDS = 30.0


class Server:
    """An iperf3 server that lives as long as this program."""

    def __init__(self) -> None:
        program = shutil.which("iperf3")
        if program is None:
            raise PeerError("iperf3 is not there: run `cargo xtask setup --bench` as root, or install Debian's iperf3")
        self.program = program
        self.port = free_port()
        self.process = subprocess.Popen(
            [program, "--server", "--bind", ADDRESS, "--port", str(self.port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sys.stderr,
        )
        self._await_listening()

    def _await_listening(self) -> None:
        deadline = time.monotonic() + START_WAIT_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise PeerError(f"the iperf3 server ended with status {self.process.returncode}; see its message above")
            if is_listening(self.port):
                return
            time.sleep(0.02)
        raise PeerError(f"the iperf3 server does not listen on port {self.port} after {START_WAIT_SECONDS:.0f} s")

    def close(self) -> None:
        self.process.kill()  # Asked politely, it complains.
        self.process.wait()

    def one_stream(self, buffer_bytes: int | None = None) -> Sample:
        client = [self.program, "--client", ADDRESS, "--port", str(self.port), "--time", str(SECONDS), "--json"]
        if buffer_bytes is not None:
            client += ["--length", str(buffer_bytes)]
        try:
            done = subprocess.run(client, capture_output=True, text=True, timeout=RUN_WAIT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise PeerError(f"iperf3 did not end within {RUN_WAIT_SECONDS:.0f} s") from None
        try:
            report = json.loads(done.stdout)
        except ValueError:
            raise PeerError(f"iperf3 printed no JSON but {done.stdout[:200]!r} and {done.stderr[:200]!r}") from None
        if done.returncode != 0 or "error" in report:
            raise PeerError(f"iperf3 failed: {report.get('error', done.stderr)}")
        received = report["end"]["sum_received"]
        cpu = report["end"]["cpu_utilization_percent"]
        cpu_seconds = (cpu["host_total"] + cpu["remote_total"]) / 100 * received["seconds"]
        return Sample.of_bytes(received["bytes"], received["seconds"], cpu_seconds)

    def version(self) -> str:
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=False)
        return done.stdout.split()[1] if done.stdout.startswith("iperf ") else "unknown"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


def is_listening(port: int) -> bool:
    """Asks the kernel: a connection to find out would count as a client that says nothing."""
    wanted = f":{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return any(row[1].endswith(wanted) and row[3] == "0A" for row in rows)


def main() -> int:
    servers = []

    def open_peer(_options: argparse.Namespace) -> Peer:
        server = Server()
        servers.append(server)
        measured = [Figure("stream", "tcp: one stream", "GB/s", server.one_stream)]
        for size in BUFFERS_BYTES:
            what = f"tcp: one stream, buffers of {size} bytes"
            measured.append(Figure(f"stream_{size}", what, "GB/s", lambda size=size: server.one_stream(size)))
        return Peer("iperf3", server.version(), measured, {"seconds": str(SECONDS)})

    try:
        return figures.run(open_peer, figures.arguments(__doc__.splitlines()[0]).parse_args())
    finally:
        for server in servers:
            server.close()


if __name__ == "__main__":
    sys.exit(main())
