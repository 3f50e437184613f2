"""A toy engine whose `grow` waits at a gate, so that a test decides when a worker goes on. Works across processes.

The gate is a folder: `open` in it lets everybody through; who waits and who passed leaves a file.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import toy
from meshkiln.engines.base import Engine, Work

SECONDS = 0.15


class Gate:
    """The test's side of the gate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ticks = itertools.count()
        for name in ("waiting", "passed"):
            (folder / name).mkdir(parents=True)
        os.environ["TEST_GATE"] = str(folder)

    def open(self) -> None:
        (self.folder / "open").touch()

    def close(self) -> None:
        (self.folder / "open").unlink()

    def waiting(self) -> int:
        return len(os.listdir(self.folder / "waiting"))

    def passed(self) -> list[str]:
        paths = (self.folder / "passed").iterdir()
        return [path.read_text() for path in sorted(paths, key=lambda path: int(path.name))]

    def tick(self) -> int:
        return next(self._ticks)

    def engine(self, compute: str = "wait", batch: int = 1) -> Engine:
        """The toy engine with its `smooth` behind the gate, or (`linger`) as slow as `SECONDS` says.

        compute : also `wait_to_grow`, which has `grow` behind the gate and lets `smooth` linger, and `wait_half_way`,
            which has `grow` half way through it
        """
        computes = {"smooth": f"gate:{compute}"}
        if compute == "wait_to_grow":
            computes = {"smooth": "gate:linger", "grow": "gate:wait_to_grow"}
        if compute == "wait_half_way":
            computes = {"grow": "gate:wait_half_way"}
        stages = [replace(s, compute=computes.get(s.name, s.compute), batch=batch) for s in toy.ENGINE.stages]
        return replace(toy.ENGINE, stages=tuple(stages))


@contextlib.contextmanager
def _waiting(batch: Sequence[Work]) -> Iterator[None]:
    folder = Path(os.environ["TEST_GATE"]) / "waiting"
    marks = [folder / f"{os.getpid()}-{index}" for index in range(len(batch))]
    for mark in marks:
        mark.touch()
    try:
        yield
    finally:
        for mark in marks:
            mark.unlink()


def wait_half_way(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    """`grow` that is let through when half of its steps are done."""
    with _waiting(batch):
        while not (Path(os.environ["TEST_GATE"]) / "open").exists():
            for work in batch:
                steps = int(work.parameters["steps"])
                work.report(steps // 2, steps)  # again and again, for of many in a moment few are told
            time.sleep(0.005)
    return toy.grow(batch)


def wait(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    folder = Path(os.environ["TEST_GATE"])
    names = [bytes(work.inputs[0]["pixels"]).decode() for work in batch]
    with _waiting(batch):
        while not (folder / "open").exists():
            time.sleep(0.005)
            for work in batch:
                work.report(0, 1)  # notices that nobody waits any more
        for name in names:
            (folder / "passed" / str(time.monotonic_ns())).write_text(name)
    return toy.smooth(batch)


def wait_to_grow(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    while not (Path(os.environ["TEST_GATE"]) / "open").exists():
        time.sleep(0.005)
        for work in batch:
            work.report(0, 1)
    return toy.grow(batch)


def linger(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    """Passes without a gate, after `SECONDS` for each."""
    for work in batch:
        time.sleep(SECONDS)
        mark = Path(os.environ["TEST_GATE"]) / "passed" / str(time.monotonic_ns())
        mark.write_text(bytes(work.inputs[0]["pixels"]).decode())
    return toy.smooth(batch)
