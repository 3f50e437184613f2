"""Serving: the deepest artifacts first, only what is missing is computed, and every answer says what happened."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import toy
from meshkiln.errors import BadPicture, DeadlinePassed, StageFailed
from meshkiln.generation import worth_keeping
from meshkiln.keys import digest
from meshkiln.kiln import Kiln
from meshkiln.result import Result
from meshkiln.store.base import Artifact
from meshkiln.store.memory import Memory
from meshkiln.workers.here import run_here
from meshkiln.workers.task import Ran, Task


@pytest.fixture
def kiln() -> Iterator[Kiln]:
    toy.RUNS.clear()
    kiln = Kiln(toy.ENGINE, Memory())
    yield kiln
    kiln.close()


def sources(result: Result) -> list[str | None]:
    return [stage.source for stage in result.stages]


def test_a_recipe_is_explained_as_it_is_generated(kiln: Kiln) -> None:
    made = kiln.generate(b"cat", recipe="reference")
    assert kiln.explain(b"cat", recipe="reference")[-1].key == made.key
    assert kiln.explain(b"cat", recipe="fast")[-1].key != made.key


def test_a_new_picture_runs_every_stage_and_asking_again_runs_none(kiln: Kiln) -> None:
    first = kiln.generate(b"cat")
    assert sources(first) == ["computed"] * 4
    assert first.saved == pytest.approx(0)
    again = kiln.generate(b"cat")
    assert again.data == first.data
    assert sources(again) == [None, None, None, "memory"]
    assert again.saved == pytest.approx(again.cost) == pytest.approx(first.cost)
    assert toy.RUNS == {"read": 1, "smooth": 1, "grow": 1, "export": 1}


def test_same_picture_as_stl_runs_only_export(kiln: Kiln) -> None:
    glb = kiln.generate(b"cat")
    # Pixels that are cheaper to decode again than to keep are not kept, and export wants them.
    stl = kiln.generate(b"cat", "stl")
    assert stl.data.startswith(b"stl:")
    assert (glb.media_type, stl.media_type) == ("model/gltf-binary", "model/stl")
    assert toy.RUNS["export"] == 2
    assert toy.RUNS["smooth"] == toy.RUNS["grow"] == 1
    by_name = {stage.stage: stage.source for stage in stl.stages}
    assert by_name["grow"] == "memory"
    assert by_name["smooth"] is None


def test_another_seed_runs_from_its_stage_on(kiln: Kiln) -> None:
    kiln.generate(b"cat")
    kiln.generate(b"cat", seed=1)
    assert toy.RUNS["smooth"] == 1
    assert toy.RUNS["grow"] == toy.RUNS["export"] == 2


def test_the_same_pixels_in_another_file_meet_after_read(kiln: Kiln) -> None:
    png = kiln.generate(b"cat|png")
    webp = kiln.generate(b"cat|webp")
    assert webp.key == png.key
    assert toy.RUNS == {"read": 2, "smooth": 1, "grow": 1, "export": 1}
    kiln.generate(b"cat|webp")
    assert toy.RUNS["read"] == 2, "a file seen before is not decoded again"


def test_an_evicted_ancestor_is_made_again(kiln: Kiln) -> None:
    first = kiln.generate(b"cat")
    for link in kiln.explain(b"cat"):
        if link.stage.name != "smooth" and link.output in kiln.store:
            del kiln.store[link.output]
    again = kiln.generate(b"cat")
    assert again.data == first.data
    assert toy.RUNS["smooth"] == 1
    assert toy.RUNS["grow"] == toy.RUNS["export"] == 2


def test_losing_the_record_costs_one_read(kiln: Kiln) -> None:
    kiln.generate(b"cat")
    del kiln.store[kiln.explain(b"cat")[0].key]
    again = kiln.generate(b"cat")
    assert toy.RUNS == {"read": 2, "smooth": 1, "grow": 1, "export": 1}
    assert sources(again)[-1] == "memory"


def test_a_store_that_keeps_nothing_still_serves() -> None:
    toy.RUNS.clear()
    kiln = Kiln(toy.ENGINE, Memory(max_bytes=0))
    assert kiln.generate(b"cat").data == kiln.generate(b"cat").data
    assert toy.RUNS["export"] == 2


def test_a_refuted_record_is_replaced_counted_and_the_chain_resolved_anew(kiln: Kiln) -> None:
    truth = kiln.generate(b"cat")
    read = kiln.explain(b"cat")[0]
    lie = Artifact.of(digest(b"other pixels"), 0.1, "application/vnd.meshkiln.record")
    kiln.store.put(read.key, lie, replace=True)
    result = kiln.generate(b"cat")
    assert result.data == truth.data
    assert kiln.records_replaced == 1
    assert kiln.explain(b"cat")[-1].key == truth.key


def test_refresh_computes_every_stage_and_replaces_what_is_stored(kiln: Kiln) -> None:
    first = kiln.generate(b"cat")
    stale = Artifact.of(b"stale", 1.0, "model/gltf-binary")
    kiln.store.put(first.key, stale, replace=True)
    assert kiln.generate(b"cat").data == b"stale"
    assert kiln.generate(b"cat", refresh=True).data == first.data
    assert kiln.generate(b"cat").data == first.data
    assert toy.RUNS == {"read": 2, "smooth": 2, "grow": 2, "export": 2}


def test_a_hundred_at_once_cost_one_generation(kiln: Kiln) -> None:
    together = threading.Barrier(100)

    def ask(_: int) -> Result:
        together.wait()
        return kiln.generate(b"cat")

    with ThreadPoolExecutor(100) as threads:
        results = list(threads.map(ask, range(100)))
    assert toy.RUNS == {"read": 1, "smooth": 1, "grow": 1, "export": 1}
    assert {result.data for result in results} == {results[0].data}
    computed = sum(stage.source == "computed" and not stage.joined for r in results for stage in r.stages)
    assert computed == 4, "each computation is reported as computed by exactly one answer"


def test_agenerate_answers_like_generate_and_joins_it(kiln: Kiln) -> None:
    async def many() -> list[Result]:
        return await asyncio.gather(*(kiln.agenerate(b"cat", seed=seed % 2) for seed in range(20)))

    results = asyncio.run(many())
    assert {r.data for r in results} == {kiln.generate(b"cat").data}
    assert toy.RUNS["smooth"] == 1
    assert toy.RUNS["grow"] == 2


def test_what_the_caller_can_fix_comes_back_as_it_is_and_a_fault_as_stage_failed(kiln: Kiln) -> None:
    with pytest.raises(BadPicture, match="empty"):
        kiln.generate(b"|")

    def broken(task: Task) -> Ran:
        if task.stage.name == "grow":
            raise ZeroDivisionError("no")
        return run_here(task)

    with pytest.raises(StageFailed, match="stage grow failed: ZeroDivisionError: no"):
        Kiln(toy.ENGINE, kiln.store, runner=broken).generate(b"cat")
    assert kiln.generate(b"cat").data, "a failure is not remembered"


def test_a_picture_that_turns_out_to_be_unusable_leaves_the_store_as_it_was(kiln: Kiln) -> None:
    def picky(task: Task) -> Ran:
        if task.stage.name == "smooth":
            raise BadPicture("no subject")
        return run_here(task)

    kiln.generate(b"dog")
    before = set(kiln.store)
    for _ in range(2):
        with pytest.raises(BadPicture, match="no subject"):
            Kiln(toy.ENGINE, kiln.store, runner=picky).generate(b"cat")
        with pytest.raises(BadPicture, match="no subject"):
            asyncio.run(Kiln(toy.ENGINE, kiln.store, runner=picky).agenerate(b"cat"))
        assert set(kiln.store) == before


def test_a_deadline_passes_without_stopping_the_computation(kiln: Kiln) -> None:
    let_go, computing = threading.Event(), threading.Event()

    def slow(task: Task) -> Ran:
        computing.set()
        assert let_go.wait(30)
        return run_here(task)

    slow_kiln = Kiln(toy.ENGINE, kiln.store, runner=slow)
    with ThreadPoolExecutor(1) as threads:
        patient = threads.submit(slow_kiln.generate, b"cat")
        assert computing.wait(30)
        with pytest.raises(DeadlinePassed):
            slow_kiln.generate(b"cat", timeout=0.01)
        let_go.set()
        assert patient.result(30).data == kiln.generate(b"cat").data


def test_progress_is_reported_stage_by_stage(kiln: Kiln) -> None:
    seen: list[tuple[str, int, int]] = []
    kiln.generate(b"cat", report=lambda *step: seen.append(step), steps=2)
    assert seen == [("read", 0, 1), ("smooth", 0, 1), ("grow", 0, 1), ("grow", 1, 2), ("grow", 2, 2), ("export", 0, 1)]


def test_everything_derived_from_a_picture_names_one_source(kiln: Kiln) -> None:
    kiln.generate(b"cat|png")
    kiln.generate(b"cat|webp", "stl")
    source = kiln.source(b"cat|bmp")
    assert {artifact.provenance["source"] for artifact in kiln.store.values()} == {source}
    assert source == kiln.source(b"cat|png") != kiln.source(b"dog")


def test_any_function_can_use_the_store_and_the_flights(kiln: Kiln) -> None:
    calls = []

    @kiln.once(version="2", name="tests.paint")
    def paint(prompt: str, *, size: int = 64) -> bytes:
        calls.append(prompt)
        return f"{prompt}:{size}".encode()

    assert paint("a cat") == paint("a cat", size=64) == b"a cat:64"
    assert paint("a cat", size=32) == b"a cat:32"
    assert calls == ["a cat", "a cat"]


def test_what_a_caller_does_to_a_result_does_not_reach_the_store(kiln: Kiln) -> None:
    first = kiln.generate(b"cat")
    first.provenance["costs"].clear()  # type: ignore[union-attr]
    assert kiln.generate(b"cat").cost > 0


def test_namespaces_share_nothing(kiln: Kiln) -> None:
    kiln.generate(b"cat")
    Kiln(toy.ENGINE, kiln.store, namespace="tenant").generate(b"cat")
    assert toy.RUNS == {"read": 2, "smooth": 2, "grow": 2, "export": 2}


def test_outputs_that_are_cheaper_to_make_than_to_read_back_are_not_worth_keeping() -> None:
    assert worth_keeping(cost=0.5, size=1000)
    assert not worth_keeping(cost=0.001, size=100_000_000)
