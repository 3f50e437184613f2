"""Operations: figures follow what happens, a day of them survives a restart, and actions do what is said of them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate import Gate
from meshkiln.gateway.purge import Doomed, purge
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from meshkiln.store.tiers import Tiers
from meshkiln.telemetry.form import sample_of
from meshkiln.telemetry.history import COARSE, DAY, FINE, LIVE, History
from meshkiln.telemetry.sample import Sample, between, together
from meshkiln.telemetry.summary import POINTS, series, summary
from meshkiln.telemetry.tally import BUCKETS, Tally, quantile
from serving import serving, until
from store_contract import artifact, key

PNG = {"content-type": "image/png"}


def post(http: httpx.Client, picture: bytes, query: str = "wait=30") -> httpx.Response:
    return http.post(f"/v1/generations?{query}", content=picture, headers=PNG)


def seen(http: httpx.Client) -> dict[str, Any]:
    return http.get("/v1/operations").json()  # type: ignore[no-any-return]


# The pure parts.


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


# The server.


def test_figures_follow_what_happens(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        cost = post(http, b"picture").json()["cost_seconds"]
        for _ in range(3):
            post(http, b"picture")
        post(http, b"")
        until(lambda: seen(http)["live"]["outcomes"].get("memory", {}).get("count") == 3)
        told = seen(http)
        assert told["live"]["outcomes"]["computed"]["count"] == 1
        for outcome in ("memory", "computed"):
            quantiles = [told["live"]["outcomes"][outcome][name] for name in ("p50", "p95", "p99")]
            assert 0 < quantiles[0] <= quantiles[1] <= quantiles[2] < 60
        assert told["live"]["saved"]["memory"] == pytest.approx(3 * cost, abs=5e-6)  # told to the microsecond
        assert told["live"]["stages"]["grow"]["count"] == 1
        assert told["live"]["stages"]["export"]["hits"] == {"memory": 3}
        assert told["live"]["errors"] == {"bad-picture": 1}
        assert told["day"]["outcomes"]["memory"]["count"] == 3
        drawn = http.get("/v1/operations/history?span=live").json()
        rate = sum(r * s for r, s in zip(drawn["per_second"]["memory"], drawn["seconds"], strict=True))
        assert rate == pytest.approx(3, rel=1e-3)
        dear = http.get("/v1/operations/dearest?limit=3").json()["artifacts"]
        costs = [artifact["cost_seconds"] / artifact["bytes"] for artifact in dear]
        assert len(dear) == 3
        assert costs == sorted(costs, reverse=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "history.sqlite")) as database:
        rows = [(at, *json.loads(text)) for at, text in database.execute("SELECT at, sample FROM minutes")]
    assert rows
    assert [sample_of(*row) for row in rows] == [Sample(*row) for row in rows], "what is counted is of the form"
    with serving(tmp_path) as http:
        assert seen(http)["day"]["outcomes"]["memory"]["count"] == 3
        assert seen(http)["live"]["outcomes"] == {}


def test_what_ends_while_the_server_stops_belongs_to_the_day(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    kinds = {"toy": gate.engine()}

    def open_once_it_stops(url: httpx.URL) -> None:
        def refused() -> bool:
            try:
                return httpx.get(url).status_code == 503
            except httpx.HTTPError:
                return True

        until(refused)
        gate.open()

    with serving(tmp_path, kinds, shutdown_seconds=30.0) as http:
        paths = [post(http, name, "").headers["location"] for name in (b"one", b"two")]
        until(lambda: gate.waiting() == 1)
        opener = threading.Thread(target=open_once_it_stops, args=(http.base_url.join("/readyz"),))
        opener.start()
    opener.join()
    with serving(tmp_path, kinds) as http:
        assert [http.get(path).json()["state"] for path in paths] == ["succeeded"] * 2
        assert seen(http)["day"]["outcomes"]["computed"]["count"] == 2


def test_without_telemetry_nothing_is_counted(tmp_path: Path) -> None:
    with serving(tmp_path, telemetry=False) as http:
        post(http, b"picture")
        post(http, b"picture")
        text = http.get("/metrics").text
        assert 'meshkiln_generation_seconds_count{outcome="memory"} 0.0' in text
        assert "meshkiln_http_requests_total{" not in text
        assert seen(http)["telemetry"] is False
        assert not (tmp_path / "data" / "history.sqlite").exists()


def test_who_hangs_on_anothers_work_is_counted_as_joined(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with serving(tmp_path, {"toy": gate.engine()}) as http:
        paths = [post(http, b"twice", "").headers["location"] for _ in range(2)]
        until(lambda: gate.waiting() == 1)
        until(lambda: seen(http)["workers"][0]["state"] == "busy")
        assert seen(http)["workers"][0]["stage"] == "smooth"
        gate.open()
        until(lambda: all(http.get(path).json()["state"] == "succeeded" for path in paths))
        text = http.get("/metrics").text
        for outcome in ("joined", "computed"):
            assert f'meshkiln_generation_seconds_count{{outcome="{outcome}"}} 1.0' in text


def test_a_pause_refuses_what_is_new_and_answers_what_is_stored(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        post(http, b"picture")
        assert http.post("/v1/operations/intake", json={"paused": True}).json() == {"paused": True}
        refused = post(http, b"new")
        assert refused.status_code == 503
        assert refused.json()["type"].endswith(":intake-paused")
        assert int(refused.headers["retry-after"]) > 0
        assert post(http, b"picture").status_code == 200
        assert "meshkiln_intake_paused 1.0" in http.get("/metrics").text
        assert http.get("/readyz").status_code == 200
        http.post("/v1/operations/intake", json={"paused": False})
        assert post(http, b"new").json()["state"] == "succeeded"


def test_a_pause_refuses_conversions_that_need_a_worker_and_gives_those_that_are_stored(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        made, other = (post(http, name).json()["id"] for name in (b"one", b"two"))
        stored = http.get(f"/v1/generations/{made}/artifacts/stl")
        assert stored.status_code == 200
        http.post("/v1/operations/intake", json={"paused": True})
        refused = http.get(f"/v1/generations/{other}/artifacts/stl")
        assert refused.status_code == 503
        assert refused.json()["type"].endswith(":intake-paused")
        assert int(refused.headers["retry-after"]) > 0
        assert http.get(f"/v1/generations/{made}/artifacts/stl").content == stored.content
        http.post("/v1/operations/purge", json={"engine": "toy"})
        assert http.get(f"/v1/generations/{other}/artifacts/glb").status_code == 200  # kept with its job
        http.post("/v1/operations/intake", json={"paused": False})
        assert http.get(f"/v1/generations/{other}/artifacts/stl").status_code == 200


def test_a_drained_worker_finishes_its_batch_ends_and_comes_back(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with serving(tmp_path, {"toy": gate.engine()}, workers=2) as http:
        path = post(http, b"slow", "").headers["location"]
        until(lambda: gate.waiting() == 1)  # it is busy with what comes before, too, but not for long
        busy = next(worker["number"] for worker in seen(http)["workers"] if worker["state"] == "busy")
        assert http.post(f"/v1/operations/workers/{busy}", json={"drained": True}).json()["state"] == "draining"
        # The last one that works is not drained.
        assert http.post(f"/v1/operations/workers/{1 - busy}", json={"drained": True}).status_code == 409
        gate.open()
        until(lambda: seen(http)["workers"][busy]["state"] == "drained")
        until(lambda: http.get(path).json()["state"] == "succeeded")
        assert seen(http)["workers"][busy]["memory_bytes"] == 0
        batches = seen(http)["workers"][busy]["batches"]
        for name in (b"one", b"two", b"three"):
            assert post(http, name).json()["state"] == "succeeded"
        assert seen(http)["workers"][busy]["batches"] == batches
        assert http.post(f"/v1/operations/workers/{busy}", json={"drained": False}).status_code == 200
        until(lambda: seen(http)["workers"][busy]["state"] == "idle")
        assert http.post("/v1/operations/workers/7", json={"drained": True}).status_code == 404


@pytest.mark.parametrize("switches", [{}, {"memory": False}, {"disk": False}, {"disk_bytes": 0}])
def test_a_purge_lets_go_of_what_is_named_and_of_nothing_else(tmp_path: Path, switches: dict[str, bool]) -> None:
    with serving(tmp_path, **switches) as http:
        keys = [post(http, name).json()["key"] for name in (b"one", b"two")]

        def purge(**asked: Any) -> dict[str, Any]:
            return http.post("/v1/operations/purge", json=asked).json()  # type: ignore[no-any-return]

        assert purge(key=keys[0], dry_run=True)["artifacts"] == 1
        assert {stage["source"] for stage in post(http, b"one").json()["stages"]} != {"computed"}
        assert purge(key=keys[0][:16])["artifacts"] == 1
        stages = {stage["stage"]: stage["source"] for stage in post(http, b"one").json()["stages"]}
        assert stages["export"] == "computed"
        assert stages["grow"] != "computed"
        assert purge(older_than_seconds=3600)["artifacts"] == 0
        assert purge(engine="other")["artifacts"] == 0
        assert purge(engine="toy", older_than_seconds=0)["artifacts"] > 2
        assert http.get("/v1/cache").json()["entries"] == 0
        assert http.post("/v1/operations/purge", json={}).status_code == 422
        assert http.post("/v1/operations/purge", json={"key": "xyz"}).status_code == 422


def test_a_purge_lets_go_of_what_memory_holds_when_the_disk_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    tiers = Tiers(Memory(), Disk(tmp_path / "file" / "store"))
    for n in range(5):
        tiers.put(key(n), artifact(n))
    assert purge(tiers, Doomed(key=key(3).hex())) == (1, 100)
    assert purge(tiers, Doomed(before=time.time())) == (4, 400)
    assert list(tiers) == []
    tiers.close()


def test_a_purge_takes_no_memory_for_what_does_not_fit(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")
    told = {"engine": "toy", "parameters": {"note": "x" * 1000}}
    disk.put_many((key(n), replace(artifact(n), provenance=told)) for n in range(5000))
    tracemalloc.start()
    assert purge(disk, Doomed(engine="other")) == (0, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6, "of five or more that all entries would take"
    assert purge(disk, Doomed(engine="toy")) == (5000, 500_000)
    assert list(disk) == []
    disk.close()


def test_actions_are_not_for_pages_of_others(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        for path, asked in (
            ("intake", {"paused": True}),
            ("purge", {"engine": "toy"}),
            ("workers/0", {"drained": True}),
        ):
            for header in ({"Origin": "https://evil.example"}, {"Host": "rebound.example"}):
                assert http.post(f"/v1/operations/{path}", json=asked, headers=header).status_code == 403
            # A form of another page's needs no preflight, but is no JSON.
            form = http.post(
                f"/v1/operations/{path}", content=b'{"paused": true}', headers={"content-type": "text/plain"}
            )
            assert form.status_code == 415
        assert seen(http)["intake"]["paused"] is False
        text = http.get("/metrics").text
        assert 'meshkiln_http_requests_total{route="none",status="403"} 6.0' in text
        for kind in ("foreign-origin", "foreign-host"):
            assert f'meshkiln_errors_total{{type="{kind}"}} 3.0' in text
