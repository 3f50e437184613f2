"""What a gateway that was restarted, or upgraded, makes of what was begun and accepted before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import toy
from gate import Gate
from serving import computed, post, serving, until


def test_a_restarted_server_runs_no_finished_stage_again(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    kinds = {"toy": gate.engine("wait_to_grow")}
    with serving(tmp_path, kinds, shutdown_seconds=0.2) as client:
        location = post(client, b"begun", "").headers["location"]
        until(lambda: gate.passed() == ["begun"])
        with client.stream("GET", f"{location}/events") as events:
            assert any('"stage": "grow", "state": "begun"' in line for line in events.iter_lines())
    gate.open()
    with serving(tmp_path, kinds) as client:
        until(lambda: client.get(location).json()["state"] == "succeeded")
        document = client.get(location).json()
    assert gate.passed() == ["begun"], "`smooth` ran once"
    assert "smooth" not in computed(document)
    assert computed(document)[-2:] == ["grow", "export"]


def test_a_job_is_resolved_anew_by_a_server_that_was_upgraded(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with serving(tmp_path, {"toy": gate.engine()}, shutdown_seconds=0.2) as client:
        location = post(client, b"upgraded", "").headers["location"]
        until(lambda: gate.waiting() == 1)
    stages = tuple(replace(stage, version=stage.version + 1) for stage in toy.ENGINE.stages)
    with serving(tmp_path, {"toy": replace(toy.ENGINE, stages=stages)}) as client:
        until(lambda: client.get(location).json()["state"] == "succeeded")
        key = client.get(location).json()["key"]
        assert post(client, b"upgraded").json()["key"] == key, "it is the new version's"
    with serving(tmp_path, {"toy": toy.ENGINE}) as client:
        assert post(client, b"upgraded").json()["key"] != key


def test_a_restarted_server_finishes_what_was_accepted(tmp_path: Path) -> None:
    with serving(tmp_path, queue_seconds=1e6) as client:
        accepted = [post(client, f"job{i}".encode(), "steps=50").headers["location"] for i in range(5)]
        # The server stops now: what it did not finish is on disk.
    with serving(tmp_path) as client:
        until(lambda: all(client.get(path).json()["state"] == "succeeded" for path in accepted))
        for path in accepted:
            artifact = client.get(client.get(path).json()["links"]["artifact"])
            assert artifact.content.startswith(b"glb:")


def test_who_followed_a_former_server_misses_nothing_of_the_new_one(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    kinds = {"toy": gate.engine()}
    with serving(tmp_path, kinds, shutdown_seconds=0.2) as client:
        events = post(client, b"followed", "").headers["location"] + "/events"
        until(lambda: gate.waiting() == 1)
        with client.stream("GET", events) as stream:
            lines = stream.iter_lines()
            seen = [next(line for line in lines if line.startswith("id: "))[4:] for _ in range(4)]
    gate.open()
    with serving(tmp_path, kinds) as client:
        until(lambda: client.get(events.removesuffix("/events")).json()["state"] == "succeeded")
        told = client.get(events, headers={"Last-Event-ID": seen[-1]}).text
        numbers = [int(line[4:]) for line in told.splitlines() if line.startswith("id: ")]
        assert told == client.get(events).text, "as who never followed"
        assert 'data: {"state": "queued"}' in told
        assert min(numbers) > max(map(int, seen))
    with serving(tmp_path, kinds) as client:
        for last in (seen[0], str(numbers[-1])):
            assert '"succeeded"' in client.get(events, headers={"Last-Event-ID": last}).text, "its end is told anyway"
