"""Worker processes: what they compute, what fails, who is refused, and how they end."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from meshkiln.engines.codec import unpack
from meshkiln.errors import BadPicture, Cancelled, DeadlinePassed, PoolClosed, QueueFull, StageFailed
from meshkiln.workers.here import run_here
from meshkiln.workers.processes import Pool
from meshkiln.workers.task import Task
from pools import ECHO, HANG, NOISE, Gate, alive, output, until
from stages import Patient, stage, task


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Two workers for the tests that leave them well."""
    with Pool(2, max_wait=0.0) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


# What they compute.


def test_a_worker_computes_what_this_process_would(pool: Pool) -> None:
    wanted = task(NOISE, seed=7, size=1000)
    there, here = pool.run(wanted), run_here(wanted)
    assert output(there) == output(here)
    assert there.output.media_type == here.output.media_type
    assert there.output.value is None, "the server's process unpacks nothing"
    assert 0 < there.seconds < 5


def test_bytes_of_any_size_come_through(pool: Pool) -> None:
    for size in (0, 1, 65_535, 65_536, 3_000_000, 40_000_000):
        data = np.random.default_rng(size).bytes(size)
        assert output(pool.run(task(ECHO, data))) == data


def test_what_an_item_comes_to_does_not_depend_on_its_mates(pool: Pool) -> None:
    alone = {seed: output(pool.run(task(NOISE, seed=seed, size=10 + seed))) for seed in range(40)}
    futures = {seed: pool.submit(task(NOISE, seed=seed, size=10 + seed)) for seed in range(40)}
    assert {seed: output(future.result()) for seed, future in futures.items()} == alone
    assert max(pool.stats().batches) > 1, "nothing was batched: the test has shown nothing"
    assert unpack(alone[3], NOISE.media_type)["noise"].shape == (13,)  # type: ignore[call-overload,index]


def test_a_batch_costs_each_item_its_share(gate: Gate) -> None:
    spin = stage("spin_timed", batch=4)
    with Pool(1, preload=[spin]) as pool:
        pool.submit(gate.task())
        _, visitor = gate.arrived()
        four = [pool.submit(task(spin, b"20")) for _ in range(4)]
        time.sleep(0.3)  # waiting is no cost
        began = time.perf_counter()
        visitor.close()
        costs = [future.result().seconds for future in four]
        passed = time.perf_counter() - began
        (took,) = {float(output(future.result())) for future in four}
        assert pool.stats().batches == {1: 1, 4: 1}
    # However busy the machine is: the batch's own time and no more is charged, in equal parts.
    assert len(set(costs)) == 1, "shares of one batch are equal"
    assert 0.08 <= took <= sum(costs) <= passed


def test_workers_share_the_processors_and_yield_to_this_process(pool: Pool) -> None:
    pid, nice, *threads = ast.literal_eval(output(pool.run(task(stage("process")))).decode())
    assert pid in {worker.pid for worker in pool.stats().workers}
    assert pid != os.getpid()
    assert nice == os.nice(0) + 10
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert threads == [str(share)] * 2


def test_progress_is_reported(pool: Pool) -> None:
    heard: list[tuple[int, int]] = []
    wanted = task(stage("steps"), b"x")
    pool.run(Task(wanted.stage, wanted.inputs, {}, Patient(), lambda step, steps: heard.append((step, steps))))
    assert heard[0] == (1, 4)
    assert heard[-1] == (4, 4)


def test_who_listens_to_progress_cannot_break_the_stage(pool: Pool) -> None:
    wanted = task(stage("steps"), b"x")

    def listen(step: int, steps: int) -> None:
        raise RuntimeError("not listening")

    assert output(pool.run(Task(wanted.stage, wanted.inputs, {}, Patient(), listen))) == b"x"


# What fails.


def test_errors_for_the_caller_come_back_as_they_are(pool: Pool) -> None:
    with pytest.raises(BadPicture) as caught:
        pool.run(task(stage("fail"), b"bad picture"))
    assert str(caught.value) == "it shows nothing"
    assert any("stages.py" in note for note in caught.value.__notes__), "where it was raised is told to the log"


@pytest.mark.parametrize(("data", "words"), [(b"bug", "ZeroDivisionError: of course"), (b"exit", "SystemExit: 3")])
def test_any_other_error_is_the_stages_failure(pool: Pool, data: bytes, words: str) -> None:
    with pytest.raises(StageFailed, match=words):
        pool.run(task(stage("fail"), data))


def test_a_stage_that_is_not_there_fails_with_its_name(pool: Pool) -> None:
    with pytest.raises(StageFailed, match="no_such_function"):
        pool.run(task(stage("no_such_function")))


def test_an_error_in_a_batch_is_only_its_own_items(pool: Pool) -> None:
    fail = stage("fail", batch=8)
    data = [b"bug" if n == 3 else b"bad picture" if n == 5 else b"%d" % n for n in range(16)]
    futures = [pool.submit(task(fail, one)) for one in data]
    for one, future in zip(data, futures, strict=True):
        if one == b"bug":
            assert type(future.exception()) is StageFailed
        elif one == b"bad picture":
            assert type(future.exception()) is BadPicture
        else:
            assert output(future.result()) == one


def test_a_batch_that_memory_does_not_suffice_for_is_halved(pool: Pool) -> None:
    counts = [pool.stats().halved]
    for _ in range(3):
        futures = [pool.submit(task(stage("too_much_at_once", batch=8))) for _ in range(16)]
        assert {output(future.result()) for future in futures} <= {b"1", b"2"}
        counts.append(pool.stats().halved)
    assert counts[0] < counts[1]
    assert counts[2] == counts[3], "it goes on trying what does not fit"


def test_one_item_that_is_too_much_by_itself_fails_clearly(pool: Pool) -> None:
    with pytest.raises(StageFailed, match="more memory than a worker may use"):
        pool.run(task(stage("too_much")))


def test_none_of_this_cost_a_worker(pool: Pool) -> None:
    assert pool.stats().restarts == {}


# Those who give up, and refusals.


def test_who_gives_up_while_waiting_is_not_computed(gate: Gate) -> None:
    with Pool(1) as pool:
        door = pool.submit(gate.task())
        _, visitor = gate.arrived()
        gone, late = Patient(), Patient(deadline=time.monotonic() + 0.2)
        futures = [pool.submit(task(ECHO, urgency=urgency)) for urgency in (gone, late)]
        gone.cancelled = True
        until(lambda: time.monotonic() > (late.deadline or 0.0))
        visitor.close()
        assert [type(future.exception(30)) for future in futures] == [Cancelled, DeadlinePassed]
        door.result()
        assert pool.stats().tasks == {"done": 1, "cancelled": 1, "deadline": 1}


def test_a_running_stage_that_nobody_waits_for_stops_at_its_next_step() -> None:
    with Pool(1) as pool:
        began = threading.Event()
        nobody = Patient()
        wanted = task(stage("step_for_ever"))
        future = pool.submit(Task(wanted.stage, wanted.inputs, {}, nobody, lambda step, steps: began.set()))
        assert began.wait(30)
        nobody.cancelled = True
        with pytest.raises(Cancelled):
            future.result(30)
        assert output(pool.run(task(ECHO, b"next"))) == b"next"
        assert pool.stats().restarts == {}


def test_a_full_queue_refuses_and_says_for_how_long(gate: Gate) -> None:
    with Pool(1, max_queue_seconds=2.5) as pool:
        door = pool.submit(gate.task())
        _, visitor = gate.arrived()
        taken = [pool.submit(task(ECHO)) for _ in range(3)]  # a stage that has never run is taken for a second
        with pytest.raises(QueueFull) as refused:
            pool.run(task(ECHO))
        assert refused.value.retry_after >= 1.0
        with pytest.raises(QueueFull):
            pool.admit()
        assert pool.stats().queued_seconds == pytest.approx(3.0)
        visitor.close()
        for future in [door, *taken]:
            future.result(30)
        pool.admit()


def test_what_a_stage_costs_is_learned() -> None:
    with Pool(1) as pool:
        spin = stage("spin")
        assert pool.estimate(spin, {}) is None
        for _ in range(5):
            pool.run(task(spin, b"20"))
        estimate = pool.estimate(spin, {})
        assert estimate is not None
        assert 0.019 < estimate < 0.2


# The end.


def test_closing_finishes_what_runs_and_refuses_the_rest(gate: Gate) -> None:
    pool = Pool(1)
    running, waiting = pool.submit(gate.task()), pool.submit(task(ECHO))
    pid, visitor = gate.arrived()
    closing = threading.Thread(target=pool.close, args=(30.0,))
    closing.start()
    assert type(waiting.exception(30)) is PoolClosed
    with pytest.raises(PoolClosed):
        pool.run(task(ECHO))
    visitor.close()
    closing.join(30)
    assert output(running.result(0)) == gate.path.encode()
    assert not alive(pid)


def test_closing_kills_what_does_not_finish_in_bounded_time() -> None:
    pool = Pool(2, preload=[HANG])
    assert pool.wait_ready(30)
    hung = pool.submit(task(HANG, b"hang"))
    until(lambda: pool.stats().running == 1)
    pids = [worker.pid for worker in pool.stats().workers]
    started = time.monotonic()
    pool.close(0.2)
    assert time.monotonic() - started < 5
    assert type(hung.exception(0)) is PoolClosed
    assert not any(alive(pid) for pid in pids if pid)
    pool.close()


@pytest.mark.parametrize("how", ["exit", "kill -9"])
@pytest.mark.parametrize("stage_name", ["idle", "hang", "get_stuck"])
def test_workers_do_not_outlive_their_parent(how: str, stage_name: str) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from meshkiln.workers.processes import Pool
from stages import stage, task
pool = Pool(2, preload=[stage("hang")])
assert pool.wait_ready(60)
if {stage_name!r} != "idle":
    pool.submit(task(stage({stage_name!r}), b"hang"))
    while not pool.stats().running:
        pass
print(*[worker.pid for worker in pool.stats().workers], flush=True)
sys.stdin.read()
if {how!r} == "exit":
    sys.exit(0)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    parent.stdin.close()
    parent.wait(30)
    until(lambda: not any(map(alive, pids)))
    parent.stdout.close()


def test_ctrl_c_is_the_parents_affair() -> None:
    with Pool(1) as pool:
        pool.run(task(ECHO))
        pid = pool.stats().workers[0].pid
        assert pid is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert output(pool.run(task(ECHO, b"still here"))) == b"still here"
        assert pool.stats().restarts == {}
