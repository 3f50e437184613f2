"""The queue before the workers, as a pure machine: what may share a batch, whose turn it is, who is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshkiln.engines.base import Scalar, Stage
from meshkiln.errors import Cancelled, DeadlinePassed, QueueFull
from meshkiln.workers.batching import GROW_AFTER, Item, Scheduler, group_of
from stages import Patient, stage, task

ALONE = stage("echo")
FOURS = stage("noise", "seed", "size", batch=4, batch_with=("size",))
EIGHTS = stage("together", batch=8)
SECONDS = {ALONE: 1.0, FOURS: 3.0, EIGHTS: 0.5}


def scheduler(**settings: float | bool) -> Scheduler[Item]:
    """A scheduler that knows what its stages cost and waits for nobody."""
    made: Scheduler[Item] = Scheduler(**{"max_wait": 0.0, "max_seconds": 1e9, **settings})  # type: ignore[arg-type]
    for known, seconds in SECONDS.items():
        made.costs.learn(known.fingerprint, None, seconds)
    return made


def item(of: Stage = ALONE, client: str = "", urgency: Patient | None = None, **parameters: Scalar) -> Item:
    return Item(task(of, client=client, urgency=urgency, **parameters))


def offered(to: Scheduler[Item], *items: Item, now: float = 0.0) -> None:
    for one in items:
        to.offer(one, now)


def everything(of: Scheduler[Item], now: float = 0.0) -> list[tuple[Item, ...]]:
    """The batches in the order in which they would run."""
    batches = []
    while batch := of.turn(now).batch:
        batches.append(batch)
    return batches


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


# Whose turn it is.


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


@dataclass
class Op:
    """One thing that happens: somebody offers, a worker asks, a sweep, time passes."""

    what: str
    client: str = "a"
    priority: int = 0
    of: Stage = ALONE
    size: int = 1
    patience: float | None = None
    give_up: bool = False
    idle: int = 1
    dt: float = 0.0


_offers = st.builds(
    Op,
    what=st.just("offer"),
    client=st.sampled_from("abc"),
    priority=st.integers(-2, 2),
    of=st.sampled_from([ALONE, FOURS, EIGHTS]),
    size=st.integers(1, 2),
    patience=st.none() | st.floats(0.0, 20.0),
    give_up=st.booleans(),
)
_turns = st.builds(Op, what=st.just("turn"), idle=st.integers(1, 3))
_others = st.builds(Op, what=st.sampled_from(["sweep", "pass", "give up", "lose"]), dt=st.floats(0.0, 2.0))
ops = st.lists(_offers | _offers | _turns | _others, max_size=60)


@dataclass
class Run:
    """What came of a list of operations."""

    queue: Scheduler[Item]
    now: float = 0.0
    offered: list[Item] = field(default_factory=list)
    batches: list[tuple[Item, ...]] = field(default_factory=list)
    dropped: list[Item] = field(default_factory=list)
    refused: int = 0

    def turn(self, idle: int) -> None:
        waiting = len(self.queue)
        turn = self.queue.turn(self.now, idle)
        self.dropped += [one for one, _ in turn.dropped]
        if turn.batch:
            self.batches.append(turn.batch)
        else:
            assert turn.again is not None or len(turn.dropped) == waiting, "work waits and nobody is to do it"

    def do(self, op: Op) -> None:
        self.now += op.dt
        if op.what == "offer":
            deadline = None if op.patience is None else self.now + op.patience
            parameters = {"seed": len(self.offered), "size": op.size} if op.of is FOURS else {}
            one = item(op.of, op.client, Patient(deadline, op.priority), **parameters)
            try:
                self.queue.offer(one, self.now)
                self.offered.append(one)
            except (QueueFull, DeadlinePassed):
                self.refused += 1
        elif op.what == "turn":
            self.turn(op.idle)
        elif op.what == "sweep":
            self.dropped += [one for one, _ in self.queue.sweep(self.now)]
        elif op.what == "give up" and self.offered:
            self.offered[int(op.dt * 7) % len(self.offered)].task.urgency.cancelled = True  # type: ignore[misc]
        elif op.what == "lose" and self.batches:
            for one in self.batches.pop():
                self.queue.again(one, alone=True)


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
@given(st.lists(_offers, max_size=60), st.data())
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
@given(st.lists(_offers, min_size=1, max_size=40), st.integers(-1, 1), st.data())
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
@given(st.lists(_offers, max_size=40))
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


@settings(deadline=None)
@given(st.lists(_offers, min_size=1, max_size=30))
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
