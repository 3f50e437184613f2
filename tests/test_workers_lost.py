"""Worker processes that die, hang or swell, and what becomes of their tasks."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from meshkiln.errors import PoisonedTask, StageFailed
from meshkiln.workers.processes import Pool
from pools import CRASH, ECHO, HANG, Gate, output, until
from stages import stage, task


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


# Workers that are lost.


def test_an_input_that_kills_its_worker_twice_fails_and_does_not_come_back() -> None:
    with Pool(1) as pool:
        with pytest.raises(PoisonedTask, match="2 times alone: it was ended by signal 9"):
            pool.run(task(CRASH, b"crash"))
        assert pool.stats().restarts == {"died": 2}
        with pytest.raises(PoisonedTask, match="not run on this input again"):
            pool.run(task(CRASH, b"crash"))
        assert pool.stats().restarts == {"died": 2}, "it was not even tried"
        assert output(pool.run(task(CRASH, b"fine"))) == b"fine"
        assert output(pool.run(task(ECHO, b"crash"))) == b"crash", "another stage may well bear the input"
        (name,) = pool.poisoned()
    with Pool(1, poisoned=[name]) as later:
        with pytest.raises(PoisonedTask):
            later.run(task(CRASH, b"crash"))
        assert later.stats().restarts == {}
        assert later.forgive(name)
        assert not later.forgive(name)
        assert later.poisoned() == ()


def test_batch_mates_of_a_killer_are_tried_one_by_one(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with Pool(1) as pool:
        door = pool.submit(gate.task())
        _, visitor = gate.arrived()
        data = [b"crash" if n == 4 else b"%d" % n for n in range(8)]
        futures = [pool.submit(task(CRASH, one)) for one in data]
        visitor.close()
        for one, future in zip(data, futures, strict=True):
            if one == b"crash":
                assert type(future.exception()) is PoisonedTask
            else:
                assert output(future.result()) == one
        assert output(door.result()) == gate.path.encode()
        assert pool.stats().restarts == {"died": 3}, "once in company, twice alone"
        assert pool.stats().poisoned == 1


def test_what_only_dies_in_company_is_finished_alone(gate: Gate) -> None:
    with Pool(1) as pool:
        pool.submit(gate.task())
        _, visitor = gate.arrived()
        futures = [pool.submit(task(stage("crash_in_company", batch=8), b"%d" % n)) for n in range(5)]
        visitor.close()
        assert [output(future.result()) for future in futures] == [b"%d" % n for n in range(5)]
        assert pool.stats().restarts == {"died": 1}
        assert pool.poisoned() == ()


def test_one_kill_from_outside_fails_nobody(gate: Gate) -> None:
    with Pool(1) as pool:
        future = pool.submit(gate.task())
        pid, _ = gate.arrived()
        os.kill(pid, signal.SIGKILL)
        again, visitor = gate.arrived()
        assert again != pid
        visitor.close()
        assert output(future.result()) == gate.path.encode()
        assert pool.stats().retried == 1


def test_a_worker_that_dies_while_it_has_nothing_to_do_is_replaced() -> None:
    with Pool(1) as pool:
        pool.run(task(ECHO))
        pid = pool.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: pool.stats().workers[0].pid not in (pid, None))
        assert output(pool.run(task(ECHO, b"well"))) == b"well"
        assert pool.stats().restarts == {"died": 1}
        assert pool.poisoned() == ()


def test_a_stage_that_hangs_past_its_time_is_killed_and_others_go_on() -> None:
    with Pool(1, preload=[HANG], timeouts={"hang": 0.3}) as pool:
        hung = pool.submit(task(HANG, b"hang"))
        fine = [pool.submit(task(HANG, b"%d" % n)) for n in range(3)]
        with pytest.raises(PoisonedTask, match=r"not done after 0\.3 s"):
            hung.result(30)
        assert [output(future.result(30)) for future in fine] == [b"0", b"1", b"2"]
        assert pool.stats().restarts == {"hung": 2}


def test_a_batch_has_the_time_of_all_its_items(gate: Gate) -> None:
    spin = stage("spin", batch=4)
    with Pool(1, preload=[spin], timeouts={"spin": 0.6}) as pool:
        pool.submit(gate.task())
        _, visitor = gate.arrived()
        futures = [pool.submit(task(spin, b"250")) for _ in range(4)]
        visitor.close()
        assert [output(future.result(30)) for future in futures] == [b"250"] * 4
        assert pool.stats().batches == {1: 1, 4: 1}
        assert pool.stats().restarts == {}


def test_a_worker_that_is_stopped_is_a_worker_that_hangs() -> None:
    with Pool(1, preload=[HANG], timeouts={"hang": 0.3}) as pool:
        assert pool.wait_ready(30)
        pid = pool.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert output(pool.run(task(HANG, b"fine"))) == b"fine"
        assert pool.stats().restarts == {"hung": 1}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell a process's memory")
def test_a_worker_that_holds_more_memory_than_it_may_is_killed() -> None:
    with Pool(1, preload=[stage("swallow")], memory=160 << 20) as pool:
        assert output(pool.run(task(stage("swallow"), b"16"))) == b"16"
        with pytest.raises(PoisonedTask, match="160 MiB are allowed"):
            pool.run(task(stage("swallow"), b"400"))
        assert pool.stats().restarts == {"memory": 2}


def test_with_an_address_space_limit_a_batch_is_halved_instead() -> None:
    with Pool(1, address_space=2 << 30, preload=[stage("swallow")]) as pool:
        with pytest.raises(StageFailed, match="more memory than a worker may use"):
            pool.run(task(stage("swallow"), b"4000"))
        assert pool.stats().restarts == {}


def test_tasks_fail_clearly_when_no_worker_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Pool(1) as pool:
        with pytest.raises(StageFailed, match="no worker can be started"):
            pool.run(task(ECHO))
        assert pool.stats().restarts["start"] >= 3
        monkeypatch.undo()
        assert pool.wait_ready(30)
        assert output(pool.run(task(ECHO, b"mended"))) == b"mended"


# Under fire.


def under_fire(kills: int) -> None:
    """Kill workers at random while tasks of all sorts run, until `kills` have been; every task must come to an end."""
    rng = np.random.default_rng(17)
    spin, crash = stage("spin", batch=4), stage("crash", batch=4)
    with Pool(3, timeout=20.0, preload=[spin], nice=0) as pool:
        assert pool.wait_ready(60)
        done, shot = threading.Event(), 0

        def shoot() -> None:
            nonlocal shot
            aim = np.random.default_rng(4)
            while shot < kills:
                pids = [worker.pid for worker in pool.stats().workers if worker.pid]
                # No faster than the pool can replace what was shot: it is the tasks that are tested.
                if len(pids) > 1 and pool.stats().running:
                    with contextlib.suppress(ProcessLookupError):  # an earlier shot's, and gone since the look
                        os.kill(pids[aim.integers(len(pids))], signal.SIGKILL)
                        shot += 1
                done.wait(float(aim.uniform(0.0, 0.25)))
            done.set()

        gunner = threading.Thread(target=shoot)
        gunner.start()
        ended: Counter[str] = Counter()
        number = 0
        while not done.is_set():
            futures = {}
            for _ in range(24):
                number += 1
                # Each of its own: what is poisoned is refused from then on.
                data = b"%d # %d" % (rng.integers(1, 30), number)
                futures[pool.submit(task(spin, data, client=f"{number % 3}"))] = data
            if number % 96 == 0:
                futures[pool.submit(task(crash, b"crash %d" % number))] = b""
            for future, data in futures.items():
                error = future.exception(60)
                if error is None:
                    assert output(future.result()) == data
                else:
                    assert isinstance(error, StageFailed), error
                    assert "worker" in str(error)
                ended["done" if error is None else type(error).__name__ if data else "crashed"] += 1
        gunner.join()
        now = pool.stats()
        assert shot == kills
        assert now.queued == now.running == 0
        assert sum(now.tasks.values()) == ended.total()
        assert now.restarts["died"] >= kills * 0.9, "two shots may hit one worker"
        # A picture that two stray shots hit while it was alone is refused too; that must be the exception.
        assert ended["done"] > 10 * (ended["PoisonedTask"] + ended["StageFailed"])
        assert output(pool.run(task(ECHO, b"peace"))) == b"peace"


def test_under_fire_every_task_ends_with_its_result_or_a_clear_error() -> None:
    under_fire(kills=8)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_under_fire_for_long() -> None:
    under_fire(kills=150)
