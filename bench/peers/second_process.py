"""The target: a second process on this host, and the pipe over which the initiator asks it things.

The pipe is there for what is outside the timed part: addresses, clearing, checking, counting CPU time.
"""

import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any, Callable

import workload
from figures import PeerError
from workload import numpy

ANSWER_WAIT_SECONDS = 60.0


class SecondProcess:
    """The initiator's end."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        # A fresh interpreter: a fork would share whatever threads and mappings the peer's library has here.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_target_main, args=(target, theirs, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, request: str, *arguments: Any) -> Any:
        """Sends a request and waits for its answer."""
        try:
            self._pipe.send((request, arguments))
        except OSError as error:
            raise PeerError(f"the target process is gone before {request!r} ({error}); see its message above") from None
        return self.answer(request)

    def answer(self, request: str) -> Any:
        """Waits for an answer."""
        if not self._pipe.poll(ANSWER_WAIT_SECONDS):
            raise PeerError(f"the target process did not answer {request!r} within {ANSWER_WAIT_SECONDS:.0f} s")
        try:
            failure, value = self._pipe.recv()
        except (EOFError, OSError):
            raise PeerError(f"the target process ended during {request!r}; see its message above") from None
        if failure is not None:
            raise PeerError(f"the target process failed at {request!r}: {failure}")
        return value

    def cpu_seconds(self) -> float:
        """CPU time of both processes so far."""
        return time.process_time() + self.ask("cpu_seconds")


class TargetMemory:
    """The target's memory, and the requests about it that are the same for every peer."""

    def __init__(self) -> None:
        self.bytes = workload.empty_memory()
        self._expected = workload.random_memory()

    @property
    def address(self) -> int:
        return self.bytes.ctypes.data

    def requests(self) -> dict[str, Callable[..., Any]]:
        return {
            "clear": self._clear,
            "check_front": lambda length: workload.difference_in_front(self.bytes, self._expected, length),
            "check_blocks": lambda *sizes: workload.difference_in_blocks(self.bytes, self._expected, *sizes),
            "cpu_seconds": time.process_time,
        }

    def _clear(self, length_bytes: int) -> None:
        # Different from the content in every byte, so that nothing old passes for arrived.
        numpy.bitwise_not(self._expected[:length_bytes], out=self.bytes[:length_bytes])


def check(difference: str | None) -> None:
    """Ends the program when a transfer said that it was complete and was not."""
    if difference is not None:
        raise PeerError(f"the transfer was reported complete, yet {difference}: its figures mean nothing")


def serve(
    pipe: Connection,
    requests: dict[str, Callable[..., Any]],
    between: Callable[[], float | None] = lambda: None,
) -> None:
    """Answers requests until the initiator is gone.

    `between` runs while none waits and says for how many seconds to wait for one; none means until one comes.
    """
    while True:
        if not pipe.poll(between()):
            continue
        try:
            request, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (None, requests[request](*arguments))
        except Exception as error:  # Told to the initiator, which ends both.
            answer = (f"{type(error).__name__}: {error}", None)
        pipe.send(answer)


def _target_main(target: Callable[..., None], pipe: Connection, arguments: tuple) -> None:
    try:
        target(pipe, *arguments)
    except PeerError as error:
        print(f"error: in the target process: {error}", flush=True)
    except (OSError, KeyboardInterrupt):
        pass  # The initiator is gone, and says why.
