"""Damaged databases: the server starts, keeps them aside, goes on with what can be read, and says so."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from meshkiln import salvage
from meshkiln.telemetry.history import History
from serving import serving

PNG = {"content-type": "image/png"}
PAGE = 4096
ROWS = 5000


def connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("CREATE TABLE IF NOT EXISTS t (name TEXT PRIMARY KEY, n INTEGER NOT NULL)")
    return database


def filled(path: Path) -> None:
    with contextlib.closing(connect(path)) as database:
        database.execute("BEGIN")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(f"{n:060}", n) for n in range(ROWS)])
        database.execute("COMMIT")


def kept(path: Path) -> list[int]:
    with contextlib.closing(salvage.opened(path, connect)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = database.execute("SELECT n, name FROM t ORDER BY n").fetchall()
    assert all(name == f"{n:060}" for n, name in found)
    return [n for n, _ in found]


def beginning(data: bytes) -> bytes:
    return b"\xa5" * PAGE + data[PAGE:]


def pages(data: bytes) -> bytes:
    where = len(data) // PAGE // 2 * PAGE
    return data[:where] + b"\xa5" * (3 * PAGE) + data[where + 3 * PAGE :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def everything(data: bytes) -> bytes:
    return b"\xa5" * len(data)


def test_a_sound_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    filled(path)
    assert kept(path) == list(range(ROWS))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("harm", "least"), [(beginning, 0), (everything, 0), (half, ROWS // 3), (pages, ROWS * 9 // 10)]
)
def test_what_can_be_read_goes_on_and_the_rest_is_kept_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[bytes], bytes], least: int
) -> None:
    path = tmp_path / "a.sqlite"
    filled(path)
    harmed = harm(path.read_bytes())
    path.write_bytes(harmed)
    found = kept(path)
    assert least <= len(found) < ROWS
    (aside,) = tmp_path.glob("a.sqlite.damaged-*")
    assert aside.read_bytes() == harmed
    (said,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert str(aside) in said
    assert said.endswith(f": {len(found)}")
    assert kept(path) == found, "and the new one is sound"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["jobs/jobs.sqlite", "jobs/feedback.sqlite", "history.sqlite"])
@pytest.mark.parametrize("harm", [half, everything])
def test_a_server_starts_whatever_became_of_its_databases(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, harm: Callable[[bytes], bytes]
) -> None:
    with serving(tmp_path) as http:
        made = http.post("/v1/generations?wait=30", content=b"a vase", headers=PNG).json()
        assert http.post(f"/v1/generations/{made['id']}/feedback", json={"rating": "up"}).status_code == 200
    path = tmp_path / "data" / name
    path.write_bytes(harm(path.read_bytes()))
    with serving(tmp_path) as http:
        again = http.post("/v1/generations", content=b"a vase", headers=PNG).json()
        assert again["key"] == made["key"]
        assert http.post(f"/v1/generations/{again['id']}/feedback", json={"rating": "down"}).status_code == 200
        new = http.post("/v1/generations?wait=30", content=b"a jug", headers=PNG).json()
        assert new["state"] == "succeeded"
    assert len(list(path.parent.glob(f"{path.name}.damaged-*"))) == 1
    assert sum(f"{path} is damaged" in record.getMessage() for record in caplog.records) == 1


def test_databases_that_break_while_they_are_open_are_told_as_storage(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        made = http.post("/v1/generations?wait=30", content=b"a vase", headers=PNG).json()
        for table, name in (("feedback", "feedback"), ("jobs", "jobs")):
            with contextlib.closing(sqlite3.connect(tmp_path / "data" / "jobs" / f"{name}.sqlite")) as database:
                database.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
            told = http.get(f"/v1/generations/{made['id']}" + ("/feedback" if name == "feedback" else ""))
            assert (told.status_code, told.json()["type"]) == (503, "urn:meshkiln:problem:storage")
        listed = http.get("/v1/generations")
        assert (listed.status_code, listed.json()["type"]) == (503, "urn:meshkiln:problem:storage")


@pytest.mark.parametrize("text", ["{", "5", '["a"]', "null"])
def test_a_minute_that_cannot_be_read_costs_that_minute(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.sqlite"
    History(path, lambda: 1e9).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("INSERT INTO minutes VALUES (?, ?)", (1e9 - 120, "[60.0, {}, {}]"))
        database.execute("INSERT INTO minutes VALUES (?, ?)", (1e9 - 60, text))
    history = History(path, lambda: 1e9)
    assert [sample.at for sample in history.day()] == [1e9 - 120]
    history.close()
