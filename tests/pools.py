"""Worker processes under test: stages for them, a gate at which these stand, and who is alive."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from meshkiln.engines.base import Stage
from meshkiln.workers.task import Ran, Task
from stages import Patient, stage, task

ECHO, CRASH, HANG = stage("echo"), stage("crash", batch=8), stage("hang")
NOISE = Stage("noise", "test.noise", 1, "stages:noise", ("picture",), ("seed", "size"), batch=8)


def output(ran: Ran) -> bytes:
    return ran.output.data


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something another process or thread is bound to do."""
    beat, end = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        beat.wait(0.005)


class Gate:
    """A Unix socket at which stages `wait_at` stand until they are let through."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._listener.settimeout(30.0)

    def arrived(self) -> tuple[int, socket.socket]:
        """The process that stands at the gate next, and what lets it through: send a byte, or close."""
        visitor, _ = self._listener.accept()
        visitor.settimeout(30.0)
        return int(visitor.recv(64).split()[0]), visitor

    def task(self, urgency: Patient | None = None) -> Task:
        return task(stage("wait_at"), self.path.encode(), urgency=urgency)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # orphans wait for whoever adopted them to collect them
