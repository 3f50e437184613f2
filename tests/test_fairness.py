"""Whose turn it is in the queue before the workers, and how far apart clients may get."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshkiln.engines.base import Stage
from queueing import ALONE, EIGHTS, FOURS, SECONDS, Op, Run, everything, item, offered, offers, scheduler
from stages import Patient


def test_one_picture_does_not_wait_for_five_hundred_of_somebody_else() -> None:
    queue = scheduler()
    offered(queue, *(item(ALONE, "many") for _ in range(500)))
    for _ in range(100):
        queue.turn(0.0)
    one = item(ALONE, "one")
    offered(queue, one)
    soon = [batch for _ in range(2) for batch in queue.turn(0.0).batch]
    assert one in soon


def test_a_client_of_twice_the_weight_gets_twice_the_seconds() -> None:
    queue = scheduler(weights={"dear": 2.0})  # type: ignore[arg-type]
    offered(queue, *(item(ALONE, client) for client in ("dear", "plain") for _ in range(300)))
    first = Counter(queue.turn(0.0).batch[0].client for _ in range(300))
    assert first == {"dear": 200, "plain": 100}


def test_nobody_saves_up_turns_while_away_and_who_stays_away_is_forgotten() -> None:
    queue = scheduler()
    offered(queue, item(ALONE, "a"), *(item(ALONE, "b") for _ in range(50)))
    for _ in range(40):
        queue.turn(0.0)
    for n in range(200):
        offered(queue, item(ALONE, f"passer-by {n}"), item(ALONE, "b"))
        queue.turn(0.0)
        queue.turn(0.0)
    assert len(queue._queue._flows) < 20
    offered(queue, *(item(ALONE, "a") for _ in range(50)))
    first = Counter(queue.turn(0.0).batch[0].client for _ in range(20))
    assert first["a"] == pytest.approx(first["b"], abs=2)


def test_who_has_one_of_each_kind_keeps_his_share_next_to_who_could_fill_every_batch() -> None:
    queue = scheduler()
    offered(queue, *(item(FOURS, "one of each", seed=0, size=size) for size in range(40)))
    offered(queue, *(item(FOURS, "many of each", seed=0, size=size) for size in range(40) for _ in range(4)))
    taken: Counter[str] = Counter()
    while taken["one of each"] < 39:
        taken.update(one.client for one in queue.turn(0.0).batch)
    assert taken["many of each"] == pytest.approx(39, abs=4)


def test_who_came_along_with_others_for_long_does_not_wait_for_long_behind_who_is_new() -> None:
    queue = scheduler()
    offered(queue, *(item(EIGHTS, "always there") for _ in range(4000)))
    for _ in range(200):
        offered(queue, item(EIGHTS, "now and then"))
        assert {one.client for one in queue.turn(0.0).batch} == {"now and then", "always there"}
        assert len(queue.turn(0.0).batch) == 8
    offered(queue, *(item(ALONE, "new") for _ in range(40)))
    turns = [queue.turn(0.0).batch[0].client for _ in range(10)]
    assert {"always there", "new"} <= set(turns)


def test_shares_are_of_seconds_not_of_tasks() -> None:
    queue = scheduler()
    offered(queue, *(item(ALONE, "long") for _ in range(100)), *(item(EIGHTS, "short") for _ in range(200)))
    seconds: Counter[str] = Counter()
    while seconds.total() < 100:
        for one in queue.turn(0.0).batch:
            seconds[one.client] += SECONDS[one.task.stage]
    assert seconds["long"] == pytest.approx(seconds["short"], abs=8 * 0.5 + 1.0)


def test_what_an_estimate_got_wrong_is_put_right() -> None:
    queue = scheduler()
    offered(queue, *(item(ALONE, client) for client in ("heavy", "light") for _ in range(400)))
    seconds: Counter[str] = Counter()
    for _ in range(300):
        (one,) = queue.turn(0.0).batch
        took = 3.0 if one.client == "heavy" else 1.0  # both are estimated alike
        seconds[one.client] += took
        queue.ran(one, took)
    assert seconds["heavy"] == pytest.approx(seconds["light"], abs=8.0)


def test_one_measurement_far_off_does_not_make_a_kind_wait_behind_all_that_is_cheap() -> None:
    queue = scheduler()
    for _ in range(20):
        queue.ran(item(FOURS), 0.01)
        queue.ran(item(ALONE), 0.01)
    queue.ran(item(FOURS), 600.0)
    offered(queue, *(item(ALONE, "theirs") for _ in range(500)), mine := item(FOURS, "mine"))
    assert mine in [one for batch in everything(queue)[:3] for one in batch]
    for _ in range(40):
        queue.ran(item(FOURS), 600.0)
    assert queue.cost(item(FOURS)) > 500, "what stays far off is followed"


def test_higher_priority_is_sooner_and_lower_is_not_never() -> None:
    queue = scheduler()
    offered(queue, *(item(ALONE, "c", Patient(priority=-1)) for _ in range(40)))
    offered(queue, *(item(ALONE, "c", Patient(priority=1)) for _ in range(200)))
    first = Counter(queue.turn(0.0).batch[0].priority for _ in range(170))
    assert first[1] == pytest.approx(160, abs=1)
    assert first[-1] == pytest.approx(10, abs=1)


def test_a_priority_that_rises_while_waiting_counts() -> None:
    queue = scheduler()
    patients = [Patient() for _ in range(50)]
    offered(queue, *(item(ALONE, "c", patient) for patient in patients))
    queue.turn(0.0)
    patients[-1].priority = 5
    assert queue.sweep(0.0) == []
    soon = [queue.turn(0.0).batch[0].task.urgency for _ in range(2)]
    assert patients[-1] in soon


def test_a_generation_that_has_begun_goes_before_the_clients_next() -> None:
    queue = scheduler()
    fresh = [item(ALONE, "c") for _ in range(3)]
    offered(queue, *fresh, now=5.0)
    begun = item(EIGHTS, "c")
    begun.task = type(begun.task)(EIGHTS, (), {}, Patient(), begun.task.report, "c", asked=1.0)
    offered(queue, begun, now=6.0)
    assert [batch[0] for batch in everything(queue, 6.0)] == [begun, *fresh]


Kinds = list[tuple[Stage, int]]
_kinds = st.lists(st.tuples(st.sampled_from([ALONE, FOURS, EIGHTS]), st.integers(1, 40)), min_size=1, max_size=12)


@settings(deadline=None)
@given(
    weights=st.fixed_dictionaries({"f": st.floats(0.25, 4.0), "g": st.floats(0.25, 4.0)}),
    kinds=st.fixed_dictionaries({"f": _kinds, "g": _kinds}),
    others=st.lists(st.sampled_from("xyz"), max_size=40),
    batching=st.booleans(),
)
@example(
    weights={"f": 3.5, "g": 0.5},
    kinds={
        "f": [(ALONE, 22), (EIGHTS, 1), (ALONE, 57)],
        "g": [(FOURS, 5), (ALONE, 20), (FOURS, 3), (EIGHTS, 4), (FOURS, 8), (EIGHTS, 5), (FOURS, 1), (EIGHTS, 34)],
    },
    others=[],
    batching=True,
)
def test_no_two_busy_clients_drift_apart_by_more_than_the_bound(
    weights: dict[str, float], kinds: dict[str, Kinds], others: list[str], batching: bool
) -> None:
    """While both wait, who is ahead is so by at most l/r of the other plus R/r of his own, as `fair` derives."""
    queue = scheduler(weights=weights, batching=batching)  # type: ignore[arg-type]
    stages = {name: [of for of, count in kinds[name] for _ in range(count)] for name in "fg"}
    for name in "fg":
        offered(queue, *(item(of, name, seed=0, size=1) for of in stages[name]))
    offered(queue, *(item(ALONE, name) for name in others))
    longest = {name: max(SECONDS[of] for of in stages[name]) / weights[name] for name in "fg"}
    along = {name: max(SECONDS[of] * (of.batch - 1) for of in stages[name]) / weights[name] for name in "fg"}
    if not batching:
        along = {"f": 0.0, "g": 0.0}
    served, left = {"f": 0.0, "g": 0.0}, {name: len(stages[name]) for name in "fg"}
    while all(left.values()):
        assert served["f"] - served["g"] <= longest["g"] + along["f"] + 1e-6
        assert served["g"] - served["f"] <= longest["f"] + along["g"] + 1e-6
        for one in queue.turn(0.0).batch:
            if one.client in served:
                served[one.client] += SECONDS[one.task.stage] / weights[one.client]
                left[one.client] -= 1


@settings(deadline=None)
@given(st.lists(offers, min_size=1, max_size=40), st.integers(-1, 1), st.data())
def test_nobody_starves_whatever_comes_after_him(happenings: list[Op], priority: int, data: st.DataObject) -> None:
    """Before who is new, each flow gets at most what its weight buys of his cost, and ever new clients together."""
    run = Run(scheduler())
    for op in happenings:
        op.patience = None
        run.do(op)
        if data.draw(st.integers(0, 2)) == 0:
            run.turn(1)
    flows = {(one.client, one.priority) for one in run.queue}
    newcomer = item(ALONE, "newcomer", Patient(priority=priority))
    run.queue.offer(newcomer, run.now)
    turns = 0
    while newcomer not in run.queue.turn(run.now).batch:
        turns += 1
        shares = 4.0 ** (2 - priority)  # of the highest priority that occurs
        assert turns <= (len(flows) + 1) * (shares * SECONDS[ALONE] / min(SECONDS.values()) + 1)
        of = data.draw(st.sampled_from([ALONE, EIGHTS]))
        run.queue.offer(item(of, f"passer-by {turns}", Patient(None, 2)), run.now)


def test_priority_counts_between_clients_of_one_request_each() -> None:
    queue = scheduler()
    offered(queue, *(item(ALONE, f"client {n}") for n in range(100)))
    queue.turn(0.0)
    offered(queue, urgent := item(ALONE, "one more", Patient(priority=1)))
    assert queue.turn(0.0).batch == (urgent,)


@settings(deadline=None)
@given(st.lists(offers, min_size=1, max_size=30))
def test_the_place_in_the_queue_is_the_place_in_which_turns_come(happenings: list[Op]) -> None:
    run = Run(scheduler(batching=False))
    for op in happenings:
        op.patience, op.give_up = None, False
        run.do(op)
    told = {one: run.queue.ahead(one) for one in run.queue}
    seconds = 0.0
    for place, (one,) in enumerate(everything(run.queue)):
        assert told[one][0] <= place <= told[one][0] + len(happenings), "ties may be told shorter than they are"
        assert told[one][1] <= seconds + 1e-6
        seconds += SECONDS[one.task.stage]
