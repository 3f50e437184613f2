"""Which tasks run next, and together. Pure: no threads, and the time is an argument.

    offer ── refused: QueueFull, DeadlinePassed
      └ the fair queue (`fair`) ── turn ─┬─ a batch: the head of the queue and others of its group
                                         ├─ dropped: cancelled meanwhile, or hopeless by now
                                         └─ nothing, and when to ask again: mates of the head are expected

Tasks may share a batch when stage and those parameters agree that the stage wants equal (`Stage.batch_with`); they are
then of one *group*. A head waits for mates only as long as they can be expected, judging by how its group arrived
lately, and never longer than the smaller of `max_wait` and a tenth of what it will cost.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshkiln.engines.base import PICTURE, Scalar, Stage
from meshkiln.errors import Cancelled, DeadlinePassed, MeshkilnError, QueueFull
from meshkiln.workers.costs import Costs
from meshkiln.workers.fair import FairQueue
from meshkiln.workers.task import Task

WAIT_SHARE = 0.1
"""A head waits for mates at most this share of its own cost: what batching can win is worth no more."""
GROW_AFTER = 16
"""So many batches must fit before a larger one is tried, as one that does not fit is computed twice."""
_GAP_SHARE = 0.3
_GAPS = 1024


@dataclass(slots=True, eq=False)
class Item:
    """A task in the queue. All but `task` is written by the scheduler.

    kind : what its cost is learned under
    group : whose items may share its batch: those of its kind, or nobody
    order : (when its request was asked, number of arrival)
    arrived : when it was offered
    charged, share : see `fair.Queued`
    """

    task: Task
    kind: Hashable = None
    group: Hashable = None
    alone: bool = False
    client: str = ""
    priority: int = 0
    order: tuple[float, int] = (0.0, 0)
    arrived: float = 0.0
    charged: float = 0.0
    share: float = 0.0


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(frozen=True, slots=True)
class Turn(Generic[I]):
    """What a worker is to do: run `batch`; or, when that is empty, ask again at `again` (None: when something comes).

    dropped : who was cancelled or cannot make his deadline any more, with the error each is owed
    """

    batch: tuple[I, ...] = ()
    again: float | None = None
    dropped: tuple[tuple[I, MeshkilnError], ...] = ()


@dataclass(slots=True)
class _Arrivals:
    last: float
    gap: float = math.inf


@dataclass(slots=True)
class _Shrunk:
    """The largest batch of a kind since memory did not suffice for a larger one; how many of that size have fitted."""

    limit: int
    fitted: int = 0


def group_of(stage: Stage, parameters: Mapping[str, Scalar]) -> Hashable:
    """What tasks must have in common to share a batch."""
    return (stage.fingerprint, stage.compute, tuple(parameters.get(name) for name in stage.batch_with))


class Scheduler(Generic[I]):
    """The queue before the workers.

    workers : how many work side by side; waiting times follow from it
    max_seconds : estimated seconds that tasks may have to wait; beyond them offers are refused
    max_wait : the longest a task waits for batch mates, in seconds; 0 batches only what waits anyway
    batching : False runs everything alone
    weights : client -> share of the workers; 1 for who is not named
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        max_seconds: float = 600.0,
        max_wait: float = 0.05,
        batching: bool = True,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.costs = Costs()
        self.workers = workers
        self._max_seconds = max_seconds
        self._max_wait = max_wait
        self._batching = batching
        self._queue: FairQueue[I] = FairQueue(self.cost, weights)
        self._arrivals: OrderedDict[Hashable, _Arrivals] = OrderedDict()
        self._shrunk: dict[Hashable, _Shrunk] = {}
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[I]:
        return iter(self._queue)

    def cost(self, item: Item) -> float:
        """Estimated compute seconds of `item`."""
        return self.costs.estimate(item.task.stage.fingerprint, item.kind)

    def seconds(self) -> float:
        """Estimated compute seconds of all that waits."""
        return self._queue.seconds()

    def offer(self, item: I, now: float) -> None:
        """Queue `item`, or raise: QueueFull (with the seconds until there is room), DeadlinePassed, Cancelled."""
        task = item.task
        item.kind = item.group = group_of(task.stage, task.parameters)
        item.client, item.priority = task.client, task.urgency.priority
        item.arrived = now
        self._arrived += 1
        item.order = (task.asked or now, self._arrived)
        # A generation that has begun is refused later than a new one: its first stages are paid for.
        self.admit(1.0 if PICTURE in task.stage.reads else 2.0)
        self._queue.push(item)
        ahead = 0.0 if task.urgency.deadline is None else self.ahead(item)[1]
        refusal = self._refusal(item, now, ahead)
        if refusal is not None:
            self._queue.remove(item)
            raise refusal
        self._note_arrival(item.group, now)

    def admit(self, share: float = 1.0) -> None:
        """Raise QueueFull when more than `share` of the work that may wait is waiting."""
        wait, bound = self.seconds() / self.workers, share * self._max_seconds
        if len(self._queue) and wait > bound:
            raise QueueFull(
                f"work for {wait:.0f} s is waiting already; at most {bound:.0f} s may wait",
                retry_after=max(1.0, wait - bound),
            )

    def ahead(self, item: I) -> tuple[int, float]:
        """(tasks, seconds) that `item` has to wait for, if nothing else comes."""
        count, seconds = self._queue.ahead(item)
        return count, seconds / self.workers

    def again(self, item: I, alone: bool) -> None:
        """Queue `item` in the place it had, as its worker was lost; `alone` keeps others out of its batch."""
        if alone:
            item.alone, item.group = True, (item.kind, item.order)
        self._queue.push(item)

    def turn(self, now: float, idle: int = 1) -> Turn[I]:
        """What a worker that is free does now.

        idle : how many are free, this one included: what waits is spread over them
        """
        dropped: list[tuple[I, MeshkilnError]] = []
        while (head := self._queue.head()) is not None:
            if (refusal := self._refusal(head, now)) is not None:
                self._queue.remove(head)
                dropped.append((head, refusal))
                continue
            ready, limit = self._queue.count(head.group), self.limit(head)
            until = self._expect_mates_until(head) if ready < limit else now
            if until > now:
                return Turn(again=until, dropped=tuple(dropped))
            batch = []
            for item in self._queue.take(min(limit, math.ceil(ready / max(1, idle)))):
                refusal = self._refusal(item, now)
                if refusal is None:
                    batch.append(item)
                else:
                    self._queue.correct(item, 0.0)
                    dropped.append((item, refusal))
            return Turn(tuple(batch), dropped=tuple(dropped))
        return Turn(dropped=tuple(dropped))

    def sweep(self, now: float) -> list[tuple[I, MeshkilnError]]:
        """Take out who is cancelled or hopeless, with the error each is owed, and follow changed priorities."""
        dropped = []
        for item in list(self._queue):
            refusal = self._refusal(item, now)
            if refusal is not None:
                self._queue.remove(item)
                dropped.append((item, refusal))
            elif item.task.urgency.priority != item.priority:
                self._queue.remove(item)
                item.priority = item.task.urgency.priority
                self._queue.push(item)
        return dropped

    def drain(self) -> list[I]:
        """Take out everything."""
        items = list(self._queue)
        for item in items:
            self._queue.remove(item)
        return items

    def ran(self, item: I, seconds: float) -> None:
        """Learn what `item` cost, and charge its client that instead of the estimate."""
        self.costs.learn(item.task.stage.fingerprint, item.kind, seconds)
        self._queue.correct(item, seconds)

    def limit(self, item: Item) -> int:
        """The largest batch for `item` now."""
        stage = item.task.stage
        if item.alone or not self._batching:
            return 1
        shrunk = self._shrunk.get(item.kind)
        return max(1, stage.batch if shrunk is None else min(stage.batch, shrunk.limit))

    def halved(self, item: Item, size: int) -> None:
        """Memory did not suffice for `size` items of this kind: smaller batches from now on."""
        self._shrunk[item.kind] = _Shrunk(max(1, size // 2))

    def fitted(self, item: Item, size: int) -> None:
        """A batch of `size` went well: after some of these a limit that was halved grows by one."""
        shrunk = self._shrunk.get(item.kind)
        if shrunk is None or size < shrunk.limit:
            return
        shrunk.fitted += 1
        if shrunk.fitted >= GROW_AFTER:
            shrunk.limit, shrunk.fitted = shrunk.limit + 1, 0
            if shrunk.limit >= item.task.stage.batch:
                del self._shrunk[item.kind]

    def _refusal(self, item: I, now: float, wait: float = 0.0) -> MeshkilnError | None:
        urgency = item.task.urgency
        if urgency.cancelled:
            return Cancelled("nobody waits for this any more")
        if urgency.deadline is None:
            return None
        needed = self.costs.measured(item.task.stage.fingerprint, item.kind)
        left = urgency.deadline - now
        if left > 0 and (needed is None or wait + needed <= left):
            return None
        takes = "" if needed is None else f", and {item.task.stage.name} takes {wait + needed:.1f} s from now"
        return DeadlinePassed(f"{max(0.0, left):.1f} s are left until the deadline{takes}: not begun")

    def _note_arrival(self, group: Hashable, now: float) -> None:
        known = self._arrivals.get(group)
        if known is None:
            self._arrivals[group] = _Arrivals(now)
        else:
            gap = now - known.last
            known.gap = gap if known.gap == math.inf else known.gap + _GAP_SHARE * (gap - known.gap)
            known.last = now
        self._arrivals.move_to_end(group)
        if len(self._arrivals) > _GAPS:
            self._arrivals.popitem(last=False)

    def _expect_mates_until(self, head: I) -> float:
        """Until when it is worth keeping `head` waiting: the past, unless a mate is due within its patience."""
        patience = head.arrived + min(self._max_wait, WAIT_SHARE * self.cost(head))
        arrivals = self._arrivals.get(head.group)
        if arrivals is None or arrivals.last + arrivals.gap > patience:
            return -math.inf
        # One that is late by a whole gap is not coming.
        return min(patience, arrivals.last + 2 * arrivals.gap)
