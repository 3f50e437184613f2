"""Sampling: solvers converge at their order, forecasts save evaluations and never touch a neighbour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkiln.engines.sampling import SOLVERS
from meshkiln.engines.sampling.batch import integrate
from meshkiln.engines.sampling.forecast import Forecast
from meshkiln.engines.sampling.plan import Plan
from meshkiln.engines.sampling.trajectory import F32, Answers, Ask, trajectory
from meshkiln.engines.vecset.sample import noise

CONDITION, NULL = 1.0, 0.25
Log = dict[int, list[tuple[float, float, bool]]]


def network(log: Log | None = None, velocity: Callable[[Ask], F32] | None = None) -> Callable[..., Answers]:
    """x' = c·cos(3t) − x, where c is the condition or the null; `log` keeps what each item asked."""

    def plain(ask: Ask) -> F32:
        c = CONDITION if ask.conditional else NULL
        return np.float32(c * np.cos(3 * ask.t)) - ask.x

    def answer(asked: Sequence[tuple[int, Ask]]) -> Answers:
        for index, ask in asked:
            if log is not None:
                log.setdefault(index, []).append((ask.t, ask.stride, ask.conditional))
        return [(velocity or plain)(ask) for _, ask in asked]

    return answer


def end(plan: Plan, x: F32, log: Log | None = None) -> F32:
    return integrate([trajectory(plan, x)], network(log))[0]


X = np.full((2, 2), 3.0, np.float32)


def exact(scale: float) -> float:
    c = NULL + scale * (CONDITION - NULL)
    at = lambda t: c * (np.cos(3 * t) + 3 * np.sin(3 * t)) / 10  # noqa: E731
    return float((3 - at(0)) * np.exp(-1) + at(1))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("adams", 2)])
def test_solvers_converge_at_their_order(solver: str, order: int) -> None:
    errors = [
        abs(float(end(Plan(steps, solver=solver, guidance_scale=2.0), X)[0, 0]) - exact(2.0)) for steps in (16, 32)
    ]
    assert errors[0] / errors[1] > 2**order * 0.75
    assert errors[1] < 0.05 / order**2


def test_a_solver_of_second_order_is_nearer_with_as_many_evaluations() -> None:
    gap = {
        solver: abs(float(end(Plan(steps, solver=solver, guidance_scale=2.0), X)[0, 0]) - exact(2.0))
        for solver, steps in (("euler", 16), ("heun", 8), ("adams", 16))
    }
    assert gap["heun"] < gap["euler"] / 2
    assert gap["adams"] < gap["euler"] / 2


def test_what_a_step_costs() -> None:
    for plan, evaluations in (
        (Plan(4), 4),
        (Plan(4, guidance_scale=3.0), 8),
        (Plan(4, guidance_scale=0.0), 8),
        (Plan(4, solver="heun"), 7),
        (Plan(4, solver="adams", guidance_scale=3.0), 8),
        (Plan(4, guidance_scale=3.0, guidance_start=0.25, guidance_end=0.75), 6),
        (Plan(4, model="student", guidance_scale=3.0), 4),
    ):
        log: Log = {}
        end(plan, X, log)
        assert len(log[0]) == evaluations, plan


def test_guidance_holds_in_its_interval_alone() -> None:
    log: Log = {}
    end(Plan(10, guidance_scale=3.0, guidance_start=0.2, guidance_end=0.5), X, log)
    assert [t for t, _, conditional in log[0] if not conditional] == pytest.approx([0.2, 0.3, 0.4])
    assert len([1 for _, _, conditional in log[0] if conditional]) == 10


def test_guidance_goes_beyond_the_condition() -> None:
    def constant(ask: Ask) -> F32:
        return np.full_like(ask.x, CONDITION if ask.conditional else NULL)

    (made,) = integrate([trajectory(Plan(5, guidance_scale=3.0), np.zeros((1, 1), np.float32))], network({}, constant))
    assert made[0, 0] == pytest.approx(NULL + 3 * (CONDITION - NULL), rel=1e-6)


def test_the_student_covers_the_way_in_even_strides() -> None:
    log: Log = {}
    plan = Plan.of({"model": "student", "steps": 4, "shift": 3.0})
    end(plan, X, log)
    assert log[0] == [(0.0, 0.25, True), (0.25, 0.25, True), (0.5, 0.25, True), (0.75, 0.25, True)]


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_students_times_are_those_it_was_taught(steps: int) -> None:
    times = Plan(steps, model="student").times()
    assert times[0] == 0
    assert times[-1] == 1
    assert all(float(16 * t).is_integer() for t in times)
    strides = [after - t for t, after in Plan(steps, model="student").strides()]
    assert max(strides) - min(strides) <= 1 / 16
    assert min(strides) > 0


def test_shift_spends_steps_near_the_noise_and_1_leaves_them_even() -> None:
    assert Plan(4).times() == [0, 0.25, 0.5, 0.75, 1]
    shifted = Plan(4, shift=3.0).times()
    assert shifted[0] == 0
    assert shifted[-1] == 1
    assert shifted == sorted(shifted)
    assert shifted[2] == pytest.approx(1 - 3 * 0.5 / (1 + 2 * 0.5))
    assert all(a < b for a, b in zip(shifted[1:-1], Plan(4).times()[1:-1], strict=True))


def test_a_forecast_is_trusted_only_after_it_has_been_right() -> None:
    line = Forecast(0.1)
    for t in (0.0, 0.1):
        assert not line.trusted(0.2)
        line.learn(t, np.full(3, 2 * t, np.float32), 1.0)
    assert not line.trusted(0.2)
    line.learn(0.2, np.full(3, 0.4, np.float32), 1.0)
    assert line.trusted(0.9)
    assert line.value(0.9) == pytest.approx(np.full(3, 1.8), rel=1e-5)
    line.learn(0.3, np.full(3, 5.0, np.float32), 1.0)
    assert not line.trusted(0.4)
    assert not Forecast(0.0).trusted(0.5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_step_caching_saves_evaluations_and_little_is_lost(solver: str) -> None:
    full: Log = {}
    plan = Plan(40, solver=solver, guidance_scale=3.0)
    whole = end(plan, X, full)
    evaluations, lost = [], []
    for threshold in (0.0, 0.005, 0.02):
        saved: Log = {}
        lost.append(float(np.abs(end(replace(plan, cache_threshold=threshold), X, saved) - whole).max()))
        evaluations.append(len(saved[0]) / len(full[0]))
    assert evaluations[0] == 1
    assert lost[0] == 0
    assert evaluations[2] < evaluations[1] < 0.6
    assert lost[1] < lost[2] < 0.1


plans = st.builds(
    Plan,
    steps=st.integers(1, 12),
    model=st.sampled_from(["teacher", "student"]),
    solver=st.sampled_from(SOLVERS),
    shift=st.sampled_from([0.5, 1.0, 3.0]),
    guidance_scale=st.sampled_from([1.0, 2.0, 5.0]),
    guidance_start=st.sampled_from([0.0, 0.3]),
    guidance_end=st.sampled_from([0.6, 1.0]),
    cache_threshold=st.sampled_from([0.0, 0.05, 0.3]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(plans, st.integers(0, 99)), min_size=2, max_size=6))
def test_items_of_any_plans_share_a_batch_and_do_not_touch_each_other(items: list[tuple[Plan, int]]) -> None:
    """Schedules, noise, caching decisions and, with a network that is itself exact, results: to the last bit."""
    together: Log = {}
    ends = integrate([trajectory(plan, noise(seed, (3, 2))) for plan, seed in items], network(together))
    for index, (plan, seed) in enumerate(items):
        alone: Log = {}
        assert np.array_equal(end(plan, noise(seed, (3, 2)), alone), ends[index])
        assert alone.get(0, []) == together.get(index, [])


def test_progress_is_told_step_by_step() -> None:
    told: list[tuple[int, int]] = []
    integrate([trajectory(Plan(3), X, lambda step, steps: told.append((step, steps)))], network())
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_batch_of_nothing() -> None:
    assert integrate([], network()) == []
