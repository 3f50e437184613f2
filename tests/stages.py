"""Stages that only tests want: they echo, fail, crash, hang, swallow memory. Named by import path, run by workers."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from meshkiln.engines.base import PICTURE, Scalar, Stage, Work
from meshkiln.errors import BadPicture
from meshkiln.workers.task import Payload, Task

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

BYTES = "application/octet-stream"


def stage(function: str, *parameters: str, batch: int = 1, batch_with: tuple[str, ...] = ()) -> Stage:
    """The stage whose function is `stages.<function>`; it reads and makes bytes."""
    return Stage(
        function,
        f"test.{function}",
        1,
        f"stages:{function}",
        (PICTURE,),
        parameters,
        media_type=BYTES,
        batch=batch,
        batch_with=batch_with,
    )


class Patient:
    """The urgency of somebody who waits for ever, until told otherwise."""

    def __init__(self, deadline: float | None = None, priority: int = 0) -> None:
        self.deadline, self.priority, self.cancelled = deadline, priority, False


def task(of: Stage, data: bytes = b"", client: str = "", urgency: Patient | None = None, **parameters: Scalar) -> Task:
    """A task for `of` on `data`."""
    return Task(of, (Payload(data, BYTES),), parameters, urgency or Patient(), lambda step, steps: None, client)


# What workers run. Inputs are bytes; what a function does to its process is often said by them.


def echo(batch: Sequence[Work]) -> list[Value]:
    return [work.inputs[0] for work in batch]


def together(batch: Sequence[Work]) -> list[Value]:
    """How many were run at once: what a real stage must never let its output depend on."""
    return [str(len(batch)).encode() for _ in batch]


def process(batch: Sequence[Work]) -> list[Value]:
    """Who we are: process, niceness, threads, working import path."""
    threads = [os.environ["OMP_NUM_THREADS"], os.environ["MESHKILN_THREADS"]]
    return [repr((os.getpid(), os.nice(0), *threads)).encode() for _ in batch]


def noise(batch: Sequence[Work]) -> list[Value]:
    """Numbers that depend on the item's seed and size, made in one call for all."""
    return [
        {"noise": np.random.default_rng(int(work.parameters["seed"])).normal(size=int(work.parameters["size"]))}
        for work in batch
    ]


def fail(batch: Sequence[Work]) -> list[Value]:
    """Items may be b"bad picture" or b"bug"; anything else is echoed, but not in a batch with those."""
    for work in batch:
        if work.inputs[0] == b"bad picture":
            raise BadPicture("it shows nothing")
        if work.inputs[0] == b"bug":
            raise ZeroDivisionError("of course")
        if work.inputs[0] == b"exit":
            raise SystemExit(3)
    return echo(batch)


def lose(batch: Sequence[Work]) -> list[Value]:
    """Opens the file that its input names."""
    return [open(bytes(work.inputs[0]).decode(), "rb").read() for work in batch]


def crash(batch: Sequence[Work]) -> list[Value]:
    """An item b"crash" ends the process."""
    if any(work.inputs[0].startswith(b"crash") for work in batch):
        os.kill(os.getpid(), signal.SIGKILL)
    return echo(batch)


def crash_in_company(batch: Sequence[Work]) -> list[Value]:
    """Ends the process when two or more are run at once."""
    if len(batch) > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return echo(batch)


def hang(batch: Sequence[Work]) -> list[Value]:
    """An item b"hang" never ends."""
    if any(work.inputs[0] == b"hang" for work in batch):
        threading.Event().wait()
    return echo(batch)


def get_stuck(batch: Sequence[Work]) -> list[Value]:
    """Never ends, in C code that lets no other Python thread of the process run."""
    ctypes.PyDLL(None).pause()
    return echo(batch)


def step_for_ever(batch: Sequence[Work]) -> list[Value]:
    """Proceeds, step by step, to no end."""
    beat = threading.Event()
    step = 0
    while True:
        step += 1
        for work in batch:
            work.report(step, 1 << 30)
        beat.wait(0.001)


def steps(batch: Sequence[Work]) -> list[Value]:
    """Reports four steps."""
    for step in range(1, 5):
        for work in batch:
            work.report(step, 4)
    return echo(batch)


def swallow(batch: Sequence[Work]) -> list[Value]:
    """Holds as many MiB as the item says, and touches them."""
    held = [np.ones(int(work.inputs[0]) << 17) for work in batch]
    if sum(map(len, held)) >= 64 << 17:
        threading.Event().wait(30)  # long enough to be seen, and ended by the parent
    return echo(batch)


def too_much_at_once(batch: Sequence[Work]) -> list[Value]:
    """Has memory for two items."""
    if len(batch) > 2:
        raise MemoryError("there is room for two")
    return [b"%d" % len(batch) for _ in batch]


def too_much(batch: Sequence[Work]) -> list[Value]:
    raise MemoryError


def wait_at(batch: Sequence[Work]) -> list[Value]:
    """Says hello at the Unix socket the first item names, and waits there until somebody answers."""
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(batch[0].inputs[0].decode())
        gate.sendall(b"%d " % os.getpid())
        gate.recv(1)
    return echo(batch)


def spin(batch: Sequence[Work]) -> list[Value]:
    """Computes for as many milliseconds as each item's first word says."""
    until = time.perf_counter() + sum(int(work.inputs[0].split()[0]) for work in batch) / 1000
    while time.perf_counter() < until:
        pass
    return echo(batch)


def spin_timed(batch: Sequence[Work]) -> list[Value]:
    """As `spin`; each item's output is how many seconds the whole batch really took."""
    started = time.perf_counter()
    spin(batch)
    return [repr(time.perf_counter() - started).encode()] * len(batch)
