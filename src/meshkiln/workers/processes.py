"""The pool: worker processes, each kept by a thread, fed with batches from one fair queue.

    run(task) ─ offer ─ queue ─ turn ─┬─ keeper ─ worker process     a keeper serves one batch after another and
                                      └─ keeper ─ worker process     replaces its worker when that is lost

A worker is lost when it dies, runs past its stage's deadline or holds more memory than it may. What it had in hand is
tried again, batch mates one by one; an input that loses two workers with nothing beside it is poisoned: it fails, and
is refused from then on. This process never unpacks a value: payloads go in and come out as bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

from meshkiln.engines.base import Scalar, Stage
from meshkiln.errors import BadParameter, MeshkilnError, PoisonedTask, PoolClosed, StageFailed
from meshkiln.workers import machine
from meshkiln.workers.batching import Scheduler, group_of
from meshkiln.workers.keeper import Job, Keeper, Limits, Loss
from meshkiln.workers.place import Place
from meshkiln.workers.poison import Poison, name_of
from meshkiln.workers.stats import Counts, PoolStats
from meshkiln.workers.task import Ran, Task
from meshkiln.workers.worker import Setup

SWEEP = 0.25
"""Seconds between looks through the queue for who has given up, and at whether idle workers live."""
KILLS = 2
"""An input that loses so many workers with nothing beside it is poisoned."""
TRIES = 6
"""A task that loses so many workers in whatever company fails: something else is wrong."""
FAILED_STARTS = 3
"""After so many starts in a row without a worker getting ready, tasks fail instead of waiting for one."""


class Pool:
    """Worker processes; `run` is a `Runner`. Use as a context manager, or call `close`.

    workers : how many processes; None is one for each processor
    threads : numeric threads of each; None shares the processors out
    preload : stages that are imported before a worker is ready; a module of theirs that has a function `warm()` gets
        it called then, to load its weights
    timeout, timeouts : seconds one item may take: of any stage, and by stage name. A batch of n may take n times that
    memory : resident bytes a worker may hold; None is four fifths of the machine's memory, shared out
    address_space : RLIMIT_AS of a worker, which makes it raise MemoryError (a batch is then halved), or None
    max_queue_seconds, max_wait, batching, weights : see `Scheduler`
    poisoned : names of inputs to refuse, as `poisoned` gave them
    nice : how much workers yield to this process, 0 to 19, so that it answers promptly while they are busy
    variables : what a worker's environment has besides this process's
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        threads: int | None = None,
        preload: Sequence[Stage] = (),
        timeout: float = 300.0,
        timeouts: Mapping[str, float] | None = None,
        memory: int | None = None,
        address_space: int | None = None,
        max_queue_seconds: float = 600.0,
        max_wait: float = 0.05,
        batching: bool = True,
        weights: Mapping[str, float] | None = None,
        poisoned: Iterable[str] = (),
        nice: int = 10,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        count = machine.processors() if workers is None else workers
        if count < 1:
            raise ValueError(f"workers={workers!r}: a pool has at least one")
        if not 0 <= nice <= 19:
            raise ValueError(f"nice={nice!r}: workers can yield by 0 (not at all) to 19")
        setup = Setup(
            threads=max(1, machine.processors() // count) if threads is None else threads,
            preload=tuple(stage.compute for stage in preload),
            nice=nice,
            address_space=address_space,
            variables=dict(variables or {}),
        )
        memory = machine.memory() * 4 // 5 // count if memory is None else memory
        limits = Limits(timeout, dict(timeouts or {}), memory)
        # Guards everything below; notified when something was queued, settled or closed.
        self._changed = threading.Condition()
        self._scheduler: Scheduler[Job] = Scheduler(
            count, max_seconds=max_queue_seconds, max_wait=max_wait, batching=batching, weights=weights
        )
        self._poison = Poison(poisoned)
        self._counts = Counts()
        self._closed = False
        self._idle = 0
        self._failed_starts = 0
        self._swept = self._opened = time.monotonic()
        keepers = [Keeper(self, setup, limits, f"meshkiln-keeper-{index}") for index in range(count)]
        self._places = {keeper: Place() for keeper in keepers}
        for keeper in keepers:
            keeper.start()

    # What callers do.

    def run(self, task: Task) -> Ran:
        """The stage's output for `task`, from a worker; blocks until then.

        Raises what the stage raised if it is a MeshkilnError, StageFailed for anything else, and QueueFull,
        DeadlinePassed, Cancelled, PoisonedTask or PoolClosed for a task that is not run.
        """
        return self.submit(task).result()

    def submit(self, task: Task) -> Future[Ran]:
        """`run` without waiting: a refusal too is in the future. To cancel, cancel the task's urgency."""
        job = Job(task)
        # Hashing a large picture takes a millisecond: not under the lock, and not while nothing is poisoned.
        name = name_of(task) if len(self._poison) else ""
        with self._changed:
            try:
                self._check(task, name)
                self._scheduler.offer(job, time.monotonic())
                self._changed.notify()
            except MeshkilnError as error:
                settled = [self._counted(job, error)]
            else:
                settled = []
        _settle(settled)
        return job.future

    def admit(self) -> None:
        """Raise QueueFull when so much waits that a new generation should not begin."""
        with self._changed:
            self._scheduler.admit()

    def estimate(self, stage: Stage, parameters: Mapping[str, Scalar]) -> float | None:
        """Compute seconds of `stage` with `parameters` by what was measured; None when it has never run."""
        with self._changed:
            return self._scheduler.costs.measured(stage.fingerprint, group_of(stage, parameters))

    def free_in(self) -> float:
        """Seconds until a worker takes up something else, by what was measured; 0 when one is idle."""
        with self._changed:
            now, costs = time.monotonic(), self._scheduler.costs

            def cost(job: Job) -> float:
                return costs.measured(job.task.stage.fingerprint, job.kind) or 0.0

            return min(place.left(cost, now) for place in self._places.values() if not place.drained)

    def learn(self, stage: Stage, parameters: Mapping[str, Scalar], seconds: float) -> None:
        """Take in that an item of `stage`, run elsewhere, took `seconds`: estimates then cover it too."""
        with self._changed:
            self._scheduler.costs.learn(stage.fingerprint, group_of(stage, parameters), seconds)

    def drain(self, worker: int) -> None:
        """Have a worker finish its batch and end; it takes up nothing more until `resume`.

        Raises IndexError for no such worker, BadParameter for the last one that is not drained: what waits would then
        wait for ever.
        """
        with self._changed:
            place = list(self._places.values())[worker]
            if not place.drained and self._working() == 1:
                raise BadParameter("this is the last worker that is not drained; pause the intake instead")
            place.drained = True
            self._scheduler.workers = self._working()
            self._changed.notify_all()

    def resume(self, worker: int) -> None:
        """Let a drained worker start and work again. Raises IndexError for no such worker."""
        with self._changed:
            list(self._places.values())[worker].drained = False
            self._scheduler.workers = self._working()
            self._changed.notify_all()

    @property
    def working(self) -> int:
        """How many workers are not drained."""
        with self._changed:
            return self._working()

    def wait_ready(self, timeout: float = 0.0) -> bool:
        """Whether every worker has loaded what it was to preload, waiting for it at most `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: all(keeper.worker for keeper in self._places), timeout)

    def poisoned(self) -> tuple[str, ...]:
        """Names of the inputs that killed workers, to be kept and given to the next pool."""
        with self._changed:
            return self._poison.names()

    def forgive(self, name: str) -> bool:
        """Let a poisoned input try again; False when `name` is not one."""
        with self._changed:
            return self._poison.forget(name)

    def stats(self) -> PoolStats:
        """What the pool does now, and has done."""
        with self._changed:
            now = time.monotonic()
            return PoolStats(
                workers=tuple(place.stats(keeper.worker, self._opened, now) for keeper, place in self._places.items()),
                queued=len(self._scheduler),
                queued_seconds=self._scheduler.seconds(),
                running=sum(len(place.batch) for place in self._places.values()),
                batches=dict(self._counts.batches),
                restarts=dict(self._counts.restarts),
                tasks=dict(self._counts.tasks),
                retried=self._counts.retried,
                halved=self._counts.halved,
                poisoned=len(self._poison),
            )

    def close(self, timeout: float = 10.0) -> None:
        """Take nothing more and let running batches finish, for `timeout` seconds; then kill.

        What waited, or was killed, ends with PoolClosed. Returns within `timeout` and two seconds.
        """
        until = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            settled = [self._counted(job, _closing()) for job in self._scheduler.drain()]
            self._changed.notify_all()
        _settle(settled)
        for keeper in self._places:
            keeper.join(max(0.0, until - time.monotonic()))
        for keeper in self._places:
            keeper.end()
        for keeper in self._places:
            keeper.join(1.0)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # What keepers do: the `Desk`.

    def started(self, keeper: Keeper, failure: str | None) -> bool:
        settled = []
        with self._changed:
            if failure is None:
                self._failed_starts = 0
            else:
                self._failed_starts += 1
                self._counts.restarts["start"] += 1
                if self._failed_starts >= FAILED_STARTS:
                    broken = StageFailed(f"no worker can be started: {failure}", "no worker can be started")
                    settled = [self._counted(job, broken) for job in self._scheduler.drain()]
            wanted = not self._closed
            self._changed.notify_all()
        _settle(settled)
        return wanted

    def turn(self, keeper: Keeper) -> Sequence[Job] | None:
        place = self._places[keeper]
        dropped: list[_Settled] = []
        with self._changed:
            self._idle += 1
            try:
                now = time.monotonic()
                look = now + SWEEP
                while not self._closed:
                    if place.drained:
                        return ()
                    if now >= self._swept + SWEEP:
                        self._swept = now
                        dropped += [self._counted(*given_up) for given_up in self._scheduler.sweep(now)]
                    turn = self._scheduler.turn(now, self._idle)
                    dropped += [self._counted(*given_up) for given_up in turn.dropped]
                    if turn.batch:
                        place.take_up(turn.batch, now)
                        return turn.batch
                    if dropped or now >= look:
                        return ()
                    self._changed.wait(min(look, turn.again or look) - now)
                    now = time.monotonic()
                return None
            finally:
                self._idle -= 1
                _settle(dropped)

    def rest(self, keeper: Keeper) -> bool:
        with self._changed:
            return self._places[keeper].drained

    def resumed(self, keeper: Keeper) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._places[keeper].drained)
            return not self._closed

    def finished(self, keeper: Keeper, batch: Sequence[Job], results: Sequence[Ran | Exception], halvings: int) -> None:
        with self._changed:
            self._places[keeper].put_down(time.monotonic())
            self._counts.batches[len(batch)] += 1
            self._counts.halved += halvings
            if halvings:
                self._scheduler.halved(batch[0], len(batch))
            else:
                self._scheduler.fitted(batch[0], len(batch))
            for job, result in zip(batch, results, strict=True):
                if isinstance(result, Ran):
                    self._scheduler.ran(job, result.seconds)
            settled = [self._counted(job, result) for job, result in zip(batch, results, strict=True)]
        _settle(settled)

    def lost(self, keeper: Keeper, batch: Sequence[Job], loss: Loss) -> None:
        with self._changed:
            self._places[keeper].put_down(time.monotonic())
            self._counts.restarts[loss.reason] += 1
            settled = []
            for job in batch:
                verdict = self._verdict(job, len(batch) == 1, loss)
                if verdict is None:
                    self._counts.retried += 1
                    self._scheduler.again(job, alone=loss.blamed)
                else:
                    settled.append(self._counted(job, verdict))
            self._changed.notify_all()
        _settle(settled)

    # Under the lock.

    def _working(self) -> int:
        return sum(not place.drained for place in self._places.values())

    def _check(self, task: Task, name: str) -> None:
        if self._closed:
            raise _closing()
        if self._failed_starts >= FAILED_STARTS:
            raise StageFailed("no worker can be started; the log says why")
        if name in self._poison:
            raise PoisonedTask(f"stage {task.stage.name} is not run on this input again: it has killed workers before")

    def _verdict(self, job: Job, alone: bool, loss: Loss) -> MeshkilnError | None:
        """What a job that lost its worker ends with, or None when it is tried again."""
        job.tries += 1
        job.kills += alone and loss.blamed
        name = job.task.stage.name
        if self._closed:
            return _closing()
        if job.kills >= KILLS:
            self._poison.add(job.task)
            return PoisonedTask(f"stage {name} loses its worker on this input, {job.kills} times alone: {loss.words}")
        if job.tries >= TRIES:
            return StageFailed(f"stage {name} lost {job.tries} workers, the last because {loss.words}")
        return None

    def _counted(self, job: Job, result: Ran | BaseException) -> _Settled:
        self._counts.ended(result)
        return job, result


_Settled = tuple[Job, Ran | BaseException]


def _settle(settled: Iterable[_Settled]) -> None:
    for job, result in settled:
        if not job.future.set_running_or_notify_cancel():
            continue  # whoever cancelled the future does not want to know
        if isinstance(result, Ran):
            job.future.set_result(result)
        else:
            job.future.set_exception(result)


def _closing() -> PoolClosed:
    return PoolClosed("the workers are shutting down; ask again when the server is back")
