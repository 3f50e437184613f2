"""Jobs on disk: accepted means durable, a key is used once, what ended long ago is let go."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from meshkiln.errors import StoreError
from meshkiln.gateway.contents import FRESH
from meshkiln.gateway.job import FAILED, QUEUED, RUNNING, SUCCEEDED, UNREADABLE, Ask, Job
from meshkiln.gateway.jobs import ROWS_KEPT, IdempotencyConflict, Jobs

ASK = Ask("toy", {"steps": 3}, "fast")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def succeeded(jobs: Jobs, job: Job, key: str = "ab") -> Job:
    told = {"media_type": "model/gltf-binary", "bytes": 6, "stages": [], "cost_seconds": 1.0, "saved_seconds": 0.0}
    return jobs.update(job, state=SUCCEEDED, finished=jobs.clock(), result={"key": key, "digest": "cd", **told})


def test_what_was_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job, new = jobs.accept(ASK, b"picture", client="me", priority=2, deadline=5.0)
    running = jobs.update(jobs.accept(ASK, b"other")[0], state=RUNNING, started=1.0)
    done = succeeded(jobs, jobs.accept(ASK, b"third")[0])
    jobs.close()
    assert new
    again = Jobs(tmp_path)
    assert again.unfinished() == [job, running]
    assert again.picture(job) == b"picture"
    assert again.get(done.id) == done
    again.close()


def test_a_folder_is_one_servers(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    with pytest.raises(StoreError, match="another running server"):
        Jobs(tmp_path)
    jobs.close()
    Jobs(tmp_path).close()


def test_an_idempotency_key_is_one_clients_and_one_requests(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job, _ = jobs.accept(ASK, b"picture", client="me", idempotency="k")
    assert jobs.accept(ASK, b"picture", client="me", idempotency="k") == (job, False)
    assert jobs.asked_before(ASK, b"picture", "me", "k") == job
    assert jobs.asked_before(ASK, b"picture", "you", "k") is None
    assert jobs.accept(ASK, b"other", client="you", idempotency="k")[1]
    for ask, picture in ((ASK, b"other"), (Ask("toy", {"steps": 4}, "fast"), b"picture")):
        with pytest.raises(IdempotencyConflict):
            jobs.accept(ask, picture, client="me", idempotency="k")
    assert len(jobs.newest(10)) == 2
    jobs.close()


def test_many_threads_with_one_key_get_one_job(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    found: list[tuple[Job, bool]] = []
    threads = [
        threading.Thread(target=lambda: found.append(jobs.accept(ASK, b"p", client="me", idempotency="k")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.id for job, _ in found}) == 1
    assert sum(new for _, new in found) == 1
    jobs.close()


def test_the_first_end_counts(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = succeeded(jobs, jobs.accept(ASK, b"p")[0])
    assert jobs.update(job, state=FAILED, error={"title": "late"}) == job
    assert jobs.get(job.id) == job
    jobs.close()


def test_files_go_after_the_retention_time_and_rows_later(tmp_path: Path) -> None:
    clock = Clock()
    jobs = Jobs(tmp_path, retention=100.0, clock=clock)
    old, _ = jobs.accept(ASK, b"old")
    jobs.pin("cd", b"result")
    succeeded(jobs, old)
    clock.now += 50
    shared, _ = jobs.accept(ASK, b"old")
    waiting, _ = jobs.accept(ASK, b"waiting")
    clock.now += 60
    assert jobs.expire() == 1  # the result; `shared` still needs the picture
    assert jobs.picture(shared) == b"old"
    jobs.update(shared, state=FAILED, finished=clock.now, error={"title": "x"})
    clock.now += 101
    assert jobs.expire() == 1
    with pytest.raises(StoreError, match="gone"):
        jobs.picture(shared)
    assert jobs.get(old.id) is not None
    assert jobs.picture(waiting) == b"waiting"  # however long it has to wait
    clock.now += ROWS_KEPT
    jobs.expire()
    assert jobs.get(old.id) is None
    assert jobs.get(waiting.id) is not None
    jobs.close()


def test_a_file_without_a_row_goes_once_it_is_not_fresh(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    orphan = tmp_path / "pictures" / "orphan"
    orphan.write_bytes(b"left by a crash between file and row")
    assert jobs.expire() == 0
    os.utime(orphan, (orphan.stat().st_mtime - FRESH - 1,) * 2)
    assert jobs.expire() == 1
    jobs.close()


def test_a_pinned_result_is_verified(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    (tmp_path / "results" / ("00" * 32)).write_bytes(b"not what its name says")
    assert jobs.pinned("00" * 32) is None
    assert jobs.pinned("../jobs.sqlite") is None
    jobs.close()


def test_an_end_that_the_disk_does_not_take_is_told_and_written_later(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job, _ = jobs.accept(ASK, b"p")
    busy = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    jobs._writer.execute("PRAGMA busy_timeout=0")
    busy.execute("BEGIN IMMEDIATE")
    done = succeeded(jobs, job)
    assert done.state == SUCCEEDED
    assert jobs.get(job.id) == done
    busy.execute("ROLLBACK")
    busy.close()
    jobs.expire()
    jobs.close()
    again = Jobs(tmp_path)
    assert again.get(job.id) == done
    assert again.unfinished() == []
    again.close()


def test_an_end_that_the_disk_takes_after_it_did_not_take_the_beginning_is_told_at_once(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job, _ = jobs.accept(ASK, b"p", client="me", idempotency="k")
    busy = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    jobs._writer.execute("PRAGMA busy_timeout=0")
    busy.execute("BEGIN IMMEDIATE")
    running = jobs.update(job, state=RUNNING, started=jobs.clock())
    assert jobs.asked_before(ASK, b"p", "me", "k") == running
    busy.execute("ROLLBACK")
    busy.close()
    done = succeeded(jobs, job)
    assert (done.state, done.started) == (SUCCEEDED, running.started)
    assert jobs.get(job.id) == done
    jobs.close()
    again = Jobs(tmp_path)
    assert again.get(job.id) == done
    again.close()


DAMAGED = {
    "ask": ['{"engine": "toy", "para', "[1]", '{"engine": 7, "parameters": {}}', "[" * 100_000, b"\xff{}", ""],
    "created": ["yesterday", 9e999],
    "priority": ["first"],
    "error": ["[1]"],
    "result": ["[1]", "{}", '{"key": "ab", "digest": "cd"}'],
}


@pytest.mark.parametrize(("column", "value"), [(name, value) for name in DAMAGED for value in DAMAGED[name]])
@pytest.mark.parametrize("state", [QUEUED, FAILED])
def test_a_row_that_cannot_be_read_costs_its_job_and_no_other(
    tmp_path: Path, state: str, column: str, value: object
) -> None:
    clock = Clock()
    jobs = Jobs(tmp_path, clock=clock)
    good, bad = (jobs.accept(ASK, picture)[0] for picture in (b"good", b"bad"))
    jobs.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as rows, rows:
        given = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
        rows.execute(f"UPDATE jobs SET state = ?, {column} = {given} WHERE id = ?", (state, value, bad.id))
    again = Jobs(tmp_path, clock=clock)
    assert again.unfinished() == [good]
    assert {job.id: job.state for job in again.newest(10)} == {good.id: QUEUED, bad.id: FAILED}
    found = again.get(bad.id)
    assert found is not None
    assert found.error == UNREADABLE
    clock.now += again.retention + ROWS_KEPT + 1
    again.expire()
    assert state == FAILED or again.get(bad.id) is None, "it goes as others do"
    again.close()


@pytest.mark.parametrize("former", [False, True])
def test_a_row_whose_result_is_no_json_any_more_goes_with_the_others(tmp_path: Path, former: bool) -> None:
    clock, path = Clock(), tmp_path / "jobs.sqlite"
    jobs = Jobs(tmp_path, clock=clock)
    bad, _ = (succeeded(jobs, jobs.accept(ASK, name)[0], key) for name, key in ((b"bad", "ba"), (b"old", "ab")))
    jobs.close()
    if former:
        with contextlib.closing(sqlite3.connect(path)) as rows:
            for name in ("key", "digest"):
                rows.execute(f"DROP INDEX by_{name}_told")
                rows.execute(f"CREATE INDEX by_{name} ON jobs (json_extract(result, '$.{name}'))")
    path.write_bytes(path.read_bytes().replace(b'{"key": "ba"', b'{"key": xba"'))
    again = Jobs(tmp_path, clock=clock)
    found = again.get(bad.id)
    assert found is not None
    assert found.error == UNREADABLE
    assert not list(tmp_path.glob("*.damaged-*")), "nothing is wrong with the database itself"
    clock.now += again.retention + ROWS_KEPT + 1
    again.expire()
    assert again.newest(10) == []
    again.close()


def test_a_deleted_result_goes_for_good_and_its_picture_when_no_other_job_needs_it(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    one, other = (succeeded(jobs, jobs.accept(ASK, b"a")[0], key) for key in ("aa", "ab"))
    told = {**(one.result or {}), "key": "ba", "digest": "ce"}
    bad = jobs.update(jobs.accept(ASK, b"b")[0], state=SUCCEEDED, finished=jobs.clock(), result=told)
    jobs.close()
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(path.read_bytes().replace(b'{"key": "ba"', b'{"key": xba"'))
    jobs = Jobs(tmp_path)
    jobs.pin("cd", b"mesh")
    assert [job.id for job in jobs.of_pictures("aa")] == [one.id, other.id]
    jobs.delete_results([one])
    assert (tmp_path / "results" / "cd").exists(), "another job came to the same bytes"
    jobs.delete_results([other])
    assert not (tmp_path / "results" / "cd").exists()
    assert not jobs.keeps_picture(one)
    jobs.close()
    again = Jobs(tmp_path)
    assert [found is not None and found.deleted for found in map(again.get, (one.id, other.id))] == [True, True]
    # What nobody can read any more is not taken for deleted.
    again.expire()
    assert again.keeps_picture(bad)
    again.close()


def test_a_damaged_database_with_a_damaged_result_goes_on_with_the_rest(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    good, bad = (jobs.accept(ASK, picture)[0] for picture in (b"good", b"bad"))
    succeeded(jobs, bad)
    jobs.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as rows:
        indexes = dict(rows.execute("SELECT name, sql FROM sqlite_schema WHERE sql LIKE '%json_extract%'"))
        for name in indexes:
            rows.execute(f"DROP INDEX {name}")
        rows.execute('UPDATE jobs SET result = \'{"key": "ab\' WHERE id = ?', (bad.id,))
        # Of the indexes the file knows, and their pages are no indexes: it is damaged.
        rows.execute("PRAGMA writable_schema=ON")
        for name, text in indexes.items():
            rows.execute("INSERT INTO sqlite_schema VALUES ('index', ?, 'jobs', 1, ?)", (name, text))
    again = Jobs(tmp_path)
    assert again.unfinished() == [good]
    found = again.get(bad.id)
    assert found is not None
    assert found.error == UNREADABLE
    again.close()


def test_poison_is_kept(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    jobs.remember_poisoned(["a", "b"])
    jobs.remember_poisoned(["a"])
    jobs.close()
    again = Jobs(tmp_path)
    assert sorted(again.poisoned()) == ["a", "b"]
    again.close()
