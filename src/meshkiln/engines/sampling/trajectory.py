"""One item's way from noise to data: a generator that yields what the network is to be asked and is sent the answers.

What is asked, when, and what is made of it depends on the item alone: its plan, its noise and its own answers. So a
batch may hold items of any lengths, solvers and guidance (see `batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.sampling import STUDENT
from meshkiln.engines.sampling.forecast import Forecast, length
from meshkiln.engines.sampling.plan import Plan

F32 = NDArray[np.float32]


class Ask(NamedTuple):
    """One evaluation of the network.

    x : the item's state, any shape
    t : time, 0 (noise) to 1 (data)
    stride : the time that the student's mean velocity is to cover; 0 asks the teacher for the velocity at t
    conditional : with the item's condition, or with the null condition
    """

    x: F32
    t: float
    stride: float
    conditional: bool


Answers = Sequence[F32]
Trajectory = Generator[tuple[Ask, ...], Answers, F32]
Velocity = Generator[tuple[Ask, ...], Answers, F32]
Report = Callable[[int, int], None]


def trajectory(plan: Plan, noise: F32, report: Report = lambda step, steps: None) -> Trajectory:
    """Integrate dx/dt = v(x, t) from `noise` at 0 to 1 as `plan` says; returns the state at 1.

    report : called with (steps done, steps)
    """
    if plan.model == STUDENT:
        return _student(plan, noise, report)
    return _STEPPERS[plan.solver](plan, noise, report)


def _student(plan: Plan, x: F32, report: Report) -> Trajectory:
    for step, (t, after) in enumerate(plan.strides()):
        (v,) = yield (Ask(x, t, after - t, True),)
        x = x + np.float32(after - t) * v
        report(step + 1, plan.steps)
    return x


class _Field:
    """The guided velocity of one item, and what is remembered of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ahead = Forecast(plan.cache_threshold)
        self.pull = Forecast(plan.cache_threshold)
        """v_cond − v_null, which changes more slowly than either."""

    def at(self, x: F32, t: float) -> Velocity:
        """The velocity, from none, one or two evaluations."""
        guided = self.plan.guided(t)
        weight = np.float32(self.plan.guidance_scale - 1)
        know_pull = guided and self.pull.trusted(t)
        # The pull needs both sides, so when it is to be asked the other is asked too.
        know_ahead = self.ahead.trusted(t) and (know_pull or not guided)
        if know_ahead:
            ahead = self.ahead.value(t)
            return ahead + weight * self.pull.value(t) if guided else ahead
        if not guided or know_pull:
            (ahead,) = yield (Ask(x, t, 0.0, True),)
            self.ahead.learn(t, ahead, length(ahead))
            return ahead + weight * self.pull.value(t) if guided else ahead
        ahead, null = yield (Ask(x, t, 0.0, True), Ask(x, t, 0.0, False))
        pull = ahead - null
        self.ahead.learn(t, ahead, length(ahead))
        self.pull.learn(t, pull, length(ahead) / max(abs(float(weight)), 1e-12))
        guided_velocity: F32 = ahead + weight * pull
        return guided_velocity


def _euler(plan: Plan, x: F32, report: Report) -> Trajectory:
    field = _Field(plan)
    for step, (t, after) in enumerate(plan.strides()):
        v = yield from field.at(x, t)
        x = x + np.float32(after - t) * v
        report(step + 1, plan.steps)
    return x


def _heun(plan: Plan, x: F32, report: Report) -> Trajectory:
    """Heun's second order method; the last step is Euler's (Karras et al. 2022, algorithm 1): no network is sure of
    itself where no noise is left."""
    field = _Field(plan)
    for step, (t, after) in enumerate(plan.strides()):
        v = yield from field.at(x, t)
        if step + 1 < plan.steps:
            then = yield from field.at(x + np.float32(after - t) * v, after)
            v = np.float32(0.5) * (v + then)
        x = x + np.float32(after - t) * v
        report(step + 1, plan.steps)
    return x


def _adams(plan: Plan, x: F32, report: Report) -> Trajectory:
    """Adams & Bashforth's two-step method with uneven steps; the first is Euler's."""
    field = _Field(plan)
    before: tuple[float, F32] | None = None
    for step, (t, after) in enumerate(plan.strides()):
        v = yield from field.at(x, t)
        ahead = v
        if before is not None:
            ahead = v + np.float32((after - t) / (2 * (t - before[0]))) * (v - before[1])
        x = x + np.float32(after - t) * ahead
        before = t, v
        report(step + 1, plan.steps)
    return x


_STEPPERS: dict[str, Callable[[Plan, F32, Report], Trajectory]] = {
    "euler": _euler,
    "heun": _heun,
    "adams": _adams,
}
