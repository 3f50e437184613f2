"""The queue before the workers, as a pure machine: what may share a batch, who waits for mates, who is refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkiln.engines.base import Stage
from meshkiln.errors import Cancelled, DeadlinePassed, QueueFull
from meshkiln.workers.batching import GROW_AFTER, Item, Scheduler, group_of
from queueing import ALONE, EIGHTS, FOURS, Op, Run, everything, item, offered, offers, ops, scheduler
from stages import Patient

# What may share a batch.


def test_only_what_the_stage_wants_equal_must_be_equal() -> None:
    queue = scheduler()
    offered(queue, *(item(FOURS, seed=seed, size=size) for seed, size in enumerate([5, 5, 9, 5])))
    batches = everything(queue)
    assert [[one.task.parameters["seed"] for one in batch] for batch in batches] == [[0, 1, 3], [2]]


def test_another_version_of_a_stage_is_another_batch() -> None:
    newer = Stage(**{name: getattr(EIGHTS, name) for name in Stage.__slots__} | {"version": 2})
    assert group_of(EIGHTS, {}) != group_of(newer, {})


def test_a_batch_is_as_large_as_the_stage_allows_and_no_larger() -> None:
    queue = scheduler()
    offered(queue, *(item(EIGHTS) for _ in range(19)))
    assert [len(batch) for batch in everything(queue)] == [8, 8, 3]


def test_without_batching_everything_runs_alone() -> None:
    queue = scheduler(batching=False)
    offered(queue, *(item(EIGHTS) for _ in range(5)))
    assert [len(batch) for batch in everything(queue)] == [1] * 5


def test_what_waits_is_spread_over_the_workers_that_are_free() -> None:
    queue = scheduler()
    offered(queue, *(item(EIGHTS) for _ in range(6)))
    assert len(queue.turn(0.0, idle=2).batch) == 3
    assert len(queue.turn(0.0, idle=1).batch) == 3


def test_what_lost_its_worker_in_company_is_tried_alone_and_first() -> None:
    queue = scheduler()
    offered(queue, *(item(EIGHTS) for _ in range(3)))
    batch = queue.turn(0.0).batch
    offered(queue, *(item(EIGHTS) for _ in range(2)))
    for one in batch:
        queue.again(one, alone=True)
    after = everything(queue)
    assert [list(one) for one in after[:3]] == [[one] for one in batch]
    assert [len(one) for one in after[3:]] == [2]


def test_who_is_to_run_alone_is_nobodys_mate_either() -> None:
    queue = scheduler()
    offered(queue, item(EIGHTS), item(EIGHTS))
    for one in queue.turn(0.0).batch:
        queue.again(one, alone=True)
    offered(queue, *(item(EIGHTS, "urgent", Patient(priority=3)) for _ in range(3)))
    batches = everything(queue)
    assert [{one.client for one in batch} for batch in batches] == [{"urgent"}, {""}, {""}]


def test_after_memory_did_not_suffice_batches_are_smaller_and_grow_again() -> None:
    queue = scheduler()
    sample = item(EIGHTS)
    offered(queue, sample)
    queue.halved(sample, 8)
    assert queue.limit(sample) == 4
    for expected in (5, 6, 7, 8, 8):
        for _ in range(GROW_AFTER):
            queue.fitted(sample, 1)  # says nothing about larger ones
            queue.fitted(sample, queue.limit(sample))
        assert queue.limit(sample) == expected
    queue.halved(sample, 2)
    queue.halved(sample, 1)
    assert queue.limit(sample) == 1


# Waiting for mates.


def test_a_head_waits_for_mates_that_can_be_expected() -> None:
    queue = scheduler(max_wait=0.05)
    for n in range(5):
        queue.offer(item(EIGHTS), 0.01 * n)
    assert queue.turn(0.04, idle=1).batch == ()
    again = queue.turn(0.04, idle=1).again
    assert again is not None
    assert again == pytest.approx(0.05)
    assert len(queue.turn(again).batch) == 5


def test_a_head_does_not_wait_for_mates_that_come_too_seldom() -> None:
    queue = scheduler(max_wait=0.05)
    for n in range(5):
        now = 10.0 * n
        queue.offer(item(EIGHTS), now)
        assert len(queue.turn(now).batch) == 1


def test_a_head_stops_waiting_when_its_mates_stay_away() -> None:
    queue = scheduler(max_wait=10.0)  # its own cost of 0.5 s allows 0.05 s
    queue.offer(item(EIGHTS), 0.0)
    queue.turn(0.0)
    queue.offer(item(EIGHTS), 0.01)
    again = queue.turn(0.01).again
    assert again == pytest.approx(0.03), "two gaps after the last that came"
    assert len(queue.turn(0.03).batch) == 1


def test_a_head_waits_for_mates_at_most_a_tenth_of_what_it_costs() -> None:
    queue = scheduler(max_wait=10.0)
    for n in range(5):
        queue.offer(item(EIGHTS), 0.2 * n)
        assert len(queue.turn(0.2 * n).batch) == 1, "0.05 s of waiting would not bring the next, which is 0.2 s away"


def test_a_full_batch_waits_for_nobody() -> None:
    queue = scheduler(max_wait=10.0)
    for n in range(8):
        queue.offer(item(EIGHTS), 0.0001 * n)
    assert len(queue.turn(0.001).batch) == 8


# Who is refused.


def test_more_work_than_may_wait_is_refused_with_the_time_until_there_is_room() -> None:
    queue = scheduler(max_seconds=10.0, workers=2)
    offered(queue, *(item(ALONE) for _ in range(21)))
    with pytest.raises(QueueFull, match="at most 10 s") as refused:
        queue.offer(item(ALONE), 0.0)
    assert refused.value.retry_after == 1.0
    offered(queue, *(item(EIGHTS) for _ in range(0)))
    assert len(queue) == 21


def test_it_is_work_that_counts_not_tasks() -> None:
    queue = scheduler(max_seconds=10.0)
    offered(queue, *(item(EIGHTS) for _ in range(20)))
    assert queue.seconds() == pytest.approx(10.0)
    offered(queue, item(FOURS, seed=0, size=1))
    with pytest.raises(QueueFull):
        queue.offer(item(EIGHTS), 0.0)


def test_a_generation_that_has_begun_is_refused_later_than_a_new_one() -> None:
    queue = scheduler(max_seconds=10.0)
    offered(queue, *(item(ALONE) for _ in range(11)))
    with pytest.raises(QueueFull):
        queue.admit()
    later = Stage(**{name: getattr(ALONE, name) for name in Stage.__slots__} | {"reads": ("read",)})
    offered(queue, item(later))


def test_who_cannot_make_his_deadline_is_refused_at_once() -> None:
    queue = scheduler()
    offered(queue, item(ALONE, urgency=Patient(deadline=101.5)), now=100.0)
    with pytest.raises(DeadlinePassed, match=r"echo takes 2\.0 s from now"):
        queue.offer(item(ALONE, urgency=Patient(deadline=100.5)), 100.0)
    with pytest.raises(DeadlinePassed):
        queue.offer(item(ALONE, urgency=Patient(deadline=99.0)), 100.0)
    assert len(queue) == 1


def test_the_queue_ahead_counts_against_a_deadline() -> None:
    queue = scheduler()
    offered(queue, *(item(ALONE, "c") for _ in range(10)))
    with pytest.raises(DeadlinePassed):
        queue.offer(item(ALONE, "c", Patient(deadline=5.0)), 0.0)
    offered(queue, item(ALONE, "c", Patient(deadline=11.5)))
    # Another client's ten do not stand in the way of his first.
    offered(queue, item(ALONE, "other", Patient(deadline=5.0)))


def test_a_stage_that_has_never_run_is_given_the_benefit_of_the_doubt() -> None:
    queue: Scheduler[Item] = Scheduler()
    offered(queue, item(ALONE, urgency=Patient(deadline=0.01)))
    assert len(queue.turn(0.005).batch) == 1


def test_who_gave_up_or_ran_out_of_time_is_dropped_not_computed() -> None:
    queue = scheduler()
    given_up, late, fine = (item(EIGHTS, urgency=Patient(deadline=deadline)) for deadline in (None, 1.0, None))
    offered(queue, given_up, late, fine)
    given_up.task.urgency.cancelled = True  # type: ignore[misc]
    turn = queue.turn(0.9)
    assert turn.batch == (fine,)
    assert {one: type(error) for one, error in turn.dropped} == {given_up: Cancelled, late: DeadlinePassed}


def test_a_sweep_finds_who_gave_up_behind_others() -> None:
    queue = scheduler()
    patient = Patient()
    offered(queue, *(item(ALONE) for _ in range(5)), item(ALONE, urgency=patient))
    patient.cancelled = True
    ((dropped, error),) = queue.sweep(0.0)
    assert dropped.task.urgency is patient
    assert isinstance(error, Cancelled)
    assert len(queue) == 5


# Properties.


@settings(deadline=None)
@given(ops, st.floats(0.0, 0.5))
def test_everybody_offered_comes_out_once_and_in_fitting_company(happenings: list[Op], max_wait: float) -> None:
    run = Run(scheduler(max_wait=max_wait, max_seconds=60.0))
    for op in happenings:
        run.do(op)
    while len(run.queue):
        run.now += 0.5  # longer than anybody waits for mates
        run.turn(1)
    came_out = Counter([one for batch in run.batches for one in batch] + run.dropped)
    assert came_out == Counter(run.offered)
    assert run.queue.seconds() == 0
    for batch in run.batches:
        assert len(batch) <= batch[0].task.stage.batch
        assert len({group_of(one.task.stage, one.task.parameters) for one in batch}) == 1
        assert len(batch) == 1 or not any(one.alone for one in batch)


@settings(deadline=None)
@given(st.lists(offers, max_size=60), st.data())
def test_first_come_first_served_within_a_client_and_what_is_alike(happenings: list[Op], data: st.DataObject) -> None:
    run = Run(scheduler())
    for op in happenings:
        run.do(op)
        if data.draw(st.integers(0, 3)) == 0:
            run.turn(data.draw(st.integers(1, 2)))
    while len(run.queue):
        run.turn(1)
    last: dict[object, tuple[float, int]] = {}
    for one in (one for batch in run.batches for one in batch):
        flow = (one.client, one.priority, one.group)
        assert last.get(flow, (-1.0, 0)) < one.order
        last[flow] = one.order
    # Across groups only batch mates overtake: who leads a batch is the oldest of his client and priority.
    waiting = set(run.offered) - set(run.dropped)
    for batch in run.batches:
        head = batch[0]
        own = [one for one in waiting if (one.client, one.priority) == (head.client, head.priority)]
        if not any(one.arrived > head.arrived for one in batch):
            assert head.order == min((one.order for one in own if one.order <= head.order), default=head.order)
        waiting -= set(batch)


@settings(deadline=None)
@given(st.lists(offers, max_size=40))
def test_a_free_worker_gets_work_whenever_there_is_some(happenings: list[Op]) -> None:
    run = Run(scheduler(max_wait=0.3))
    for op in happenings:
        run.do(op)
    while len(run.queue):
        turn = run.queue.turn(run.now)
        if not turn.batch and not turn.dropped:
            assert turn.again is not None
            assert run.now < turn.again <= run.now + 0.3
            run.now = turn.again
            assert run.queue.turn(run.now).batch
