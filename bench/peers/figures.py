"""What a peer's program prints: one JSON object a figure, on standard output.

    {"peer", "what", "value", "unit", "version", "samples": [...], "settings": {...}}
    {"peer", "what", "cannot": "why"}

Run by hand, a program measures each of its figures some rounds and prints the medians. With `--stepwise` another
program sets the pace, so that both can be measured alternately: the first line says which figures there are, then
each line on standard input names a figure and is answered by one object with one sample.
"""

import argparse
import json
import os
import statistics
import sys
from dataclasses import dataclass, field
from typing import Callable

import workload

GIGABYTE = 1e9


class PeerError(Exception):
    """Something went wrong that ends the program: its text says what, and what to do."""


class Cannot(Exception):
    """The peer cannot do this here: its text says why."""


@dataclass
class Sample:
    """One measurement. CPU time is that of all processes of the peer together."""

    value: float
    cpu_seconds_per_gigabyte: float | None = None

    @staticmethod
    def of_bytes(count_bytes: int, wall_seconds: float, cpu_seconds: float) -> "Sample":
        gigabytes = count_bytes / GIGABYTE
        return Sample(gigabytes / wall_seconds, cpu_seconds / gigabytes)


@dataclass
class Figure:
    """Something that is measured. `key` is the name by which the stepwise mode asks for it."""

    key: str
    what: str
    unit: str
    measure: Callable[[], Sample]


def curves(write: Callable[[int], Sample], scattered: Callable[[int], Sample]) -> list[Figure]:
    """Throughput against the size of a block: plain writes, and one transfer of scattered blocks."""
    made = []
    for size in workload.CURVE_BLOCKS_BYTES:
        made.append(Figure(f"write_{size}", f"writes of {size} bytes", "GB/s", lambda size=size: write(size)))
        made.append(Figure(f"list_{size}", f"scattered blocks of {size} bytes, one transfer", "GB/s",
                           lambda size=size: scattered(size)))
    return made


@dataclass
class Peer:
    """A peer, what can be measured of it, and what cannot: pairs of a name and a reason."""

    name: str
    version: str
    figures: list[Figure]
    settings: dict[str, str] = field(default_factory=dict)
    cannot: list[tuple[str, str]] = field(default_factory=list)

    def cannot_object(self, what: str, why: str) -> dict:
        print(f"{self.name} cannot: {what}: {why}", file=sys.stderr)
        return {"peer": self.name, "what": what, "cannot": why}

    def measured_object(self, figure: Figure, samples: list[Sample]) -> dict:
        values = [sample.value for sample in samples]
        measured = {
            "peer": self.name,
            "what": figure.what,
            "value": statistics.median(values),
            "unit": figure.unit,
            "version": self.version,
            "samples": values,
            "settings": self.settings,
        }
        cpu = [s.cpu_seconds_per_gigabyte for s in samples if s.cpu_seconds_per_gigabyte is not None]
        if cpu:
            measured["cpu_seconds_per_gigabyte"] = statistics.median(cpu)
        return measured


class Output:
    """Standard output, kept for the objects alone: what libraries print there goes to standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def write(self, value: dict) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that all programs have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5, help="samples of each figure (default 5)")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before them that do not count (default 1)")
    parser.add_argument("--stepwise", action="store_true", help="measure what standard input asks for, one by one")
    return parser


def run(open_peer: Callable[[argparse.Namespace], Peer], options: argparse.Namespace) -> int:
    """Measures, prints, and gives the program's exit status."""
    output = Output()
    try:
        peer = open_peer(options)
        if options.stepwise:
            stepwise(peer, output)
        else:
            all_rounds(peer, output, options.rounds, options.warm_up)
        return 0
    except PeerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def all_rounds(peer: Peer, output: Output, rounds: int, warm_up: int) -> None:
    for what, why in peer.cannot:
        output.write(peer.cannot_object(what, why))
    for figure in peer.figures:
        try:
            samples = [figure.measure() for _ in range(warm_up + max(rounds, 1))]
            output.write(peer.measured_object(figure, samples[warm_up:]))
        except Cannot as reason:
            output.write(peer.cannot_object(figure.what, str(reason)))


def stepwise(peer: Peer, output: Output) -> None:
    figures = {figure.key: figure for figure in peer.figures}
    output.write({
        "peer": peer.name,
        "version": peer.version,
        "settings": peer.settings,
        "figures": [{"key": f.key, "what": f.what, "unit": f.unit} for f in peer.figures],
        "cannot": [{"what": what, "why": why} for what, why in peer.cannot],
    })
    # Not `for line in sys.stdin`, which may read ahead.
    while line := sys.stdin.readline():
        figure = figures.get(line.strip())
        if figure is None:
            raise PeerError(f"no figure is called {line.strip()!r}; there are: {', '.join(figures)}")
        try:
            output.write(peer.measured_object(figure, [figure.measure()]))
        except Cannot as reason:
            output.write(peer.cannot_object(figure.what, str(reason)))
