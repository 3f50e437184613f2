"""A scheduler that knows what its stages cost, what is offered to it, and what comes of that."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from meshkiln.engines.base import Scalar, Stage
from meshkiln.errors import DeadlinePassed, QueueFull
from meshkiln.workers.batching import Item, Scheduler
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


offers = st.builds(
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
ops = st.lists(offers | offers | _turns | _others, max_size=60)


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
