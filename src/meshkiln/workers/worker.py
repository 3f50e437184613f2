"""One worker process, as its parent sees it: started, talked to, watched, killed."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshkiln.workers import wire

STALL_SECONDS = 30.0
"""A frame whose next byte does not come or go for so long comes from a process that is stopped, not busy."""


class Gone(Exception):
    """The process is dead, or talks nonsense, which is no better."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What every worker of a pool is started with.

    threads : for the numeric libraries of one worker
    preload : import paths of stage functions, imported before the worker is ready
    nice : how much a worker yields to the process that serves (0 to 19)
    address_space : RLIMIT_AS in bytes, or None
    variables : what its environment has besides ours
    """

    threads: int = 1
    preload: tuple[str, ...] = ()
    nice: int = 0
    address_space: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


class Worker:
    """A running process. The thread that makes it must outlive it: on Linux it dies with that thread.

    most : bytes it may send at once; it cannot honestly have more than it may hold
    Raises OSError or Gone when there is no starting it.
    """

    def __init__(self, setup: Setup, most: int = wire.MAX_BYTES) -> None:
        ours, theirs = wire.pair()
        command = [sys.executable, "-P", "-m", "meshkiln.workers.child", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, env=environment(setup)
            )
        self.pid = self._process.pid
        self._connection, self._most = ours, most
        self._poll = select.poll()
        self._poll.register(ours, select.POLLIN)
        wire.patient(ours, STALL_SECONDS)
        try:
            self.send({"do": "setup", **{name: getattr(setup, name) for name in ("preload", "nice", "address_space")}})
        except Gone:
            self.bury()
            raise

    def send(self, message: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Hand over one frame. Raises Gone."""
        try:
            wire.send(self._connection, message, blobs)
        except OSError as error:
            raise Gone(str(error)) from error

    def receive(self, timeout: float) -> tuple[dict[str, Any], list[bytes]] | None:
        """The next frame, or None when none begins within `timeout` seconds. Raises Gone."""
        if not self._poll.poll(timeout * 1000):
            return None
        try:
            return wire.receive(self._connection, self._most)
        except (OSError, EOFError, ValueError) as error:
            raise Gone(str(error)) from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def resident(self) -> int:
        """Bytes of memory the process has in use; 0 where the system does not tell (no /proc)."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def kill(self) -> None:
        """End the process now. Any thread may; whoever waits for a frame then gets Gone."""
        self._process.kill()

    def bury(self, grace: float = 0.0) -> None:
        """Close the connection, at which the process ends by itself; kill it when it has not after `grace` seconds."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if grace:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def death(self, gone: Gone | None = None) -> str:
        """How the process ended, in words; one that has not, although it is `gone`, is killed."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.bury()
            return f"it was given up: {gone}"
        return f"it was ended by signal {-code}" if code < 0 else f"it exited with status {code}"


def environment(setup: Setup) -> dict[str, str]:
    """The environment of a worker: ours, with our import path and with as many threads as it may use."""
    threads = str(setup.threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "MESHKILN_THREADS")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, **dict.fromkeys(names, threads), **setup.variables}
