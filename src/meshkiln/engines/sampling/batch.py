"""Many trajectories at once: what all ask is answered in one call, and none sees another's plan, state or answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.sampling.trajectory import Answers, Ask, Trajectory

F32 = NDArray[np.float32]

Network = Callable[[Sequence[tuple[int, Ask]]], Answers]
"""[(index of the item, what it asks), …] → a velocity for each, of the shape of its x, in arrays that nobody writes
into afterwards."""


def integrate(trajectories: Sequence[Trajectory], network: Network) -> list[F32]:
    """The end of each trajectory. Each round asks `network` once, for all that have not ended."""
    ends: dict[int, F32] = {}
    waiting: dict[int, tuple[Ask, ...]] = {}

    def advance(index: int, answers: Answers | None) -> None:
        try:
            # A generator that has not begun is sent None.
            waiting[index] = trajectories[index].send(answers)  # type: ignore[arg-type]
        except StopIteration as stop:
            waiting.pop(index, None)
            ends[index] = stop.value

    for index in range(len(trajectories)):
        advance(index, None)
    while waiting:
        asked = [(index, ask) for index, asks in waiting.items() for ask in asks]
        answers = network(asked)
        at = 0
        for index, asks in list(waiting.items()):
            advance(index, answers[at : at + len(asks)])
            at += len(asks)
    return [ends[index] for index in range(len(trajectories))]
