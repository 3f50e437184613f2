"""What the operations page draws: quantiles, counts between looks, and a day of them that survives a restart."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkiln.telemetry.history import COARSE, DAY, FINE, LIVE, History
from meshkiln.telemetry.sample import Sample, between, together
from meshkiln.telemetry.summary import POINTS, series, summary
from meshkiln.telemetry.tally import BUCKETS, Tally, quantile


@given(st.lists(st.floats(1e-6, 700), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_value_it_stands_for(values: list[float], share: float) -> None:
    tally = Tally()
    for value in values:
        tally.observe(value)
    exact = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    found = quantile(tally.counts, share)
    assert found is not None
    above = next((bound for bound in BUCKETS if exact <= bound), BUCKETS[-1])
    below = max((bound for bound in BUCKETS if bound < exact), default=0.0)
    assert min(below, BUCKETS[-1]) <= found <= above


def test_no_observations_have_no_quantile() -> None:
    assert quantile(Tally().counts, 0.5) is None


def test_a_stored_answer_and_a_long_generation_fall_between_bounds() -> None:
    assert BUCKETS[0] < 50e-6 < 300 < BUCKETS[-1]


def test_what_grew_between_looks_adds_up_to_what_grew_over_all() -> None:
    looks = [
        {"n": 0, "by": {}, "counts": [0, 0]},
        {"n": 2, "by": {"a": 1}, "counts": [1, 0]},
        {"n": 2, "by": {"a": 1, "b": 5}, "counts": [1, 4]},
    ]
    steps = [Sample(i, 1.0, between(looks[i - 1], looks[i]), {"level": i}) for i in (1, 2)]
    assert steps[1].grown == {"by": {"b": 5}, "counts": [0, 4]}
    whole = together(steps)
    assert whole.grown == between(looks[0], looks[2])
    assert (whole.at, whole.seconds, whole.levels) == (2, 2.0, {"level": 2})


def test_a_count_that_was_set_back_grew_from_nothing() -> None:
    assert between({"n": 7}, {"n": 3}) == {"n": 3}


class Clock:
    now = 1.7e9

    def __call__(self) -> float:
        return self.now


def filled(history: History, clock: Clock, seconds: float, each: int = 1) -> int:
    """Let `seconds` pass with `each` more of "n" in every look; returns how many looks that were."""
    looks = int(seconds / FINE)
    for _ in range(looks):
        clock.now += FINE
        filled.total += each  # type: ignore[attr-defined]
        history.add({"errors": {"n": filled.total}}, {"waiting": 1})  # type: ignore[attr-defined]
    return looks


filled.total = 0  # type: ignore[attr-defined]


def test_the_day_survives_a_restart_and_the_file_stays_bounded(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "history.sqlite"
    history = History(path, clock)
    filled(history, clock, 2 * DAY)
    assert len(history.live()) == LIVE / FINE
    before = history.day()
    assert DAY / COARSE * 0.95 <= len(before) <= DAY / COARSE + 1
    history.close()
    with sqlite3.connect(path) as database:
        (rows,) = database.execute("SELECT count(*) FROM minutes").fetchone()
    assert rows <= DAY / COARSE + 1
    again = History(path, clock)
    # The minute that was going on is a row by now, and the oldest has gone for it.
    assert summary(again.day())["errors"] == summary(before[1:])["errors"]
    assert again.live() == []
    clock.now += DAY
    assert again.day() == []
    again.close()


def test_nothing_is_counted_twice_over_a_restart(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "history.sqlite"
    for _ in range(3):
        history = History(path, clock)
        filled.total = 0  # type: ignore[attr-defined]
        history.add({"errors": {"n": 0}}, {})
        filled(history, clock, 90)
        history.close()
    day = History(path, clock).day()
    assert summary(day)["errors"] == {"n": 3 * 90 / FINE}


EMPTY = [0] * (len(BUCKETS) + 1)
ODD = [
    "[1, {}",
    "[" * 100_000,
    b'[60, {"errors": {"\xff": 1}}, {}]',
    json.dumps([60, {"generations": {"memory": {"counts": [1, *EMPTY], "seconds": 1.0}}}, {}]),
    json.dumps([60, {"answers": {"/": {"counts": "many"}}}, {}]),
    json.dumps([60, {"errors": 7}, {}]),
    json.dumps([60, {"errors": {"n": {"m": 1}}}, {}]),
    json.dumps([60, {"evicted": {"disk": {"size": 1}}}, {}]),
    json.dumps([60, {}, {"memory": 5}]),
    json.dumps([0, {}, {}]),
    json.dumps(["60", {}, {}]),
    json.dumps([60, {"errors": {"n": float("nan")}}, {}]),
    json.dumps([60, [], {}]),
    f"[1{'0' * 400}, {{}}, {{}}]",
]


def test_a_row_that_nobody_can_read_costs_its_minute_and_no_other(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "history.sqlite"
    tally = {"memory": {"counts": [1, *EMPTY[1:]], "seconds": 1.0}}
    good = json.dumps([60, {"generations": tally, "errors": {"n": 1}, "later": 5}, {"waiting": 2, "memory": {"x": 1}}])
    History(path, clock).close()
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for number, text in enumerate([*ODD, good, good]):
            given = "CAST(? AS TEXT)" if isinstance(text, bytes) else "?"
            database.execute(f"INSERT INTO minutes VALUES (?, {given})", (clock.now - 6000 + 60 * number, text))
        database.execute("INSERT INTO minutes VALUES ('noon', ?), (1e300, ?)", (good, good))
    history = History(path, clock)
    filled(history, clock, 120)
    told, drawn = summary(history.day()), series(history.day())
    assert told["outcomes"]["memory"]["count"] == 2
    assert told["errors"]["n"] == 2 + 120 / FINE - 1
    assert drawn["waiting"][:2] == [2, 2]
    history.close()


def test_a_disk_that_does_not_take_it_costs_the_day_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    clock = Clock()
    history = History(tmp_path / "file" / "history.sqlite", clock)
    filled(history, clock, 120)
    assert history.live()
    history.close()


def test_a_series_is_never_longer_than_what_can_be_drawn_and_loses_nothing() -> None:
    samples = [Sample(1.7e9 + i, 1.0, {"saved": {"memory": 1.0}}, {"waiting": i}) for i in range(1440)]
    drawn = series(samples)
    assert len(drawn["at"]) <= POINTS
    assert sum(drawn["saved_seconds"]) == 1440


def drawn_of(runs: list[int], away: float, length: float = 60.0) -> dict[str, Any]:
    """The series of so many samples in a row each, between which the server was away for so long."""
    samples, at = [], 1.7e9
    for run in runs:
        for _ in range(run):
            at += length
            tally = {"counts": [1, *EMPTY[1:]], "seconds": 1e-5}
            grown = {"generations": {"memory": tally}, "saved": {"memory": 1.0}, "busy": {"0": 1.0}}
            samples.append(Sample(at, length, grown, {"waiting": 1, "memory": {"0": 1}, "bytes": {"disk": 1}}))
        at += away
    return series(samples)


@pytest.mark.parametrize("length", [FINE, COARSE])
def test_no_line_is_drawn_across_the_time_that_the_server_was_away(length: float) -> None:
    drawn = drawn_of([10, 5], 7200, length)
    assert drawn["at"][10] == drawn["at"][11] - length, "the gap ends where what is known begins again"
    assert drawn["seconds"][10] == 7200
    for column in (
        *(drawn[name] for name in ("saved_seconds", "errors", "waiting", "active", "wait_seconds")),
        *(drawn[name][of] for name, of in (("per_second", "memory"), ("busy", "0"), ("bytes", "disk"))),
        *drawn["latency"]["memory"].values(),
    ):
        assert len(column) == len(drawn["at"]) == 16
        assert column[10] is None
    assert None not in (drawn["saved_seconds"][:10] + drawn["per_second"]["memory"][11:])


def test_no_line_is_drawn_across_the_time_that_the_machine_slept() -> None:
    clock, running = Clock(), Clock()
    history = History(None, clock, running)
    for asleep in (0, 0, 0, 600, 0, 0):
        clock.now, running.now = clock.now + FINE + asleep, running.now + FINE
        history.add({}, {"waiting": 1})
    assert series(history.live())["waiting"] == [1, 1, None, 1, 1, 1]
    assert series(history.day())["waiting"] == [1, None, 1]
    assert summary(history.day())["seconds"] == 5 * FINE


def test_what_is_joined_to_be_drawn_is_not_joined_across_a_gap() -> None:
    drawn = drawn_of([331, 502, 433], 3600)
    assert [seconds for seconds in drawn["seconds"] if seconds > 1800] == [3600, 3600]
    ends = [(at - seconds, at) for at, seconds in zip(drawn["at"], drawn["seconds"], strict=True)]
    assert all(end == pytest.approx(begin) for (_, end), (begin, _) in pairwise(ends))


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=300), st.sampled_from([1.0, 5.0, 1000.0]))
def test_a_server_that_is_away_all_the_time_has_no_more_points_and_loses_nothing(runs: list[int], away: float) -> None:
    drawn = drawn_of(runs, away)
    assert len(drawn["at"]) <= POINTS
    assert sum(saved for saved in drawn["saved_seconds"] if saved is not None) == sum(runs)
    assert drawn["saved_seconds"].count(None) == (min(max(0, len(runs) - 1), POINTS // 4) if away > 3 else 0)
