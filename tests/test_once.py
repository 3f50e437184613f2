"""`once`: calls computed once, keyed by arguments."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshkiln.flights import Flights
from meshkiln.once import once
from meshkiln.store.base import Store

PATIENCE = 30.0
Decorate = Callable[..., Callable[[Callable[..., Any]], Any]]


def test_the_same_arguments_however_given_compute_once(decorate: Decorate) -> None:
    calls = []

    @decorate()
    def paint(prompt: str, steps: int = 50, *extra: int, guidance: float = 7.5, **more: Any) -> str:
        calls.append((prompt, steps, extra, guidance, more))
        return f"{prompt} {steps} {guidance!r}"

    answers = {
        paint("a mug"),
        paint(prompt="a mug"),
        paint("a mug", 50),
        paint("a mug", guidance=7.5, steps=50),
    }
    assert answers == {"a mug 50 7.5"}
    assert len(calls) == 1
    assert paint("a mug", guidance=7) == paint("a mug", guidance=7.0) == "a mug 50 7.0"
    assert len(calls) == 2
    assert paint.key("m", a=1, b=2) == paint.key("m", b=2, a=1)
    different = [paint.key("m"), paint.key("m", 51), paint.key("m", 50, 1), paint.key("m", a=1), paint.key("n")]
    assert len(set(different)) == len(different)


def test_a_float_parameter_takes_no_whole_number_that_a_float_cannot_hold(decorate: Decorate) -> None:
    @decorate()
    def scale(by: float) -> list[Any]:
        return [by]

    assert scale.key(2**53) == scale.key(2.0**53)
    assert scale.key(2**53 + 1) != scale.key(2**53)
    assert scale.key(True) != scale.key(1.0)


@dataclass
class Camera:
    fov: float
    offset: tuple[int, ...] = ()


@pytest.mark.parametrize(
    "argument",
    [
        None,
        True,
        3,
        -(2**80),
        0.5,
        "ü",
        b"\0",
        [1, [2, {"a": None}]],
        np.eye(3, dtype=np.float32),
        Camera(40.0, (1, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_can_be_an_argument(decorate: Decorate, argument: object) -> None:
    calls = []

    @decorate()
    def draw(argument: object) -> int:
        calls.append(argument)
        return len(calls)

    assert [draw(argument), draw(argument), draw([argument])] == [1, 1, 2]


@pytest.mark.parametrize(
    ("argument", "kind", "text"),
    [
        (object(), TypeError, "argument 'lens' of .* is a builtins.object"),
        ({1, 2}, TypeError, "argument 'lens' of .* is a builtins.set"),
        ([1, object()], TypeError, r"argument 'lens' of .*\[1\] is a builtins.object"),
        (np.array([object()]), TypeError, "argument 'lens' of .* of object"),
        (float("nan"), ValueError, "argument 'lens' of .* is nan"),
        ("\ud800", ValueError, "argument 'lens' of "),
    ],
)
def test_an_argument_that_cannot_be_a_key_is_named(
    decorate: Decorate, argument: object, kind: type[Exception], text: str
) -> None:
    calls = []
    draw = decorate()(_counted(calls))
    with pytest.raises(kind, match=text):
        draw(1, lens=argument)
    assert calls == []
    with pytest.raises(TypeError, match="lense"):
        draw(1, lense=2)


def _counted(calls: list[Any]) -> Callable[..., Any]:
    def draw(picture: int, lens: Any = None) -> int:
        calls.append(lens)
        return picture

    return draw


def test_each_caller_may_change_what_he_gets(decorate: Decorate) -> None:
    @decorate()
    def shape() -> dict[str, Any]:
        return {"faces": np.zeros(3, np.int32)}

    @decorate()
    def scores() -> list[int]:
        return [1]

    for _ in range(2):
        mine, list_ = shape(), scores()
        assert mine["faces"].sum() == 0
        assert list_ == [1]
        mine["faces"] += 1
        list_.append(2)


def test_cost_is_measured_given_or_told_by_the_result(decorate: Decorate, store: Store) -> None:
    def work(n: int) -> list[int]:
        threading.Event().wait(0.05)
        return [n]

    measured, given, told = (
        decorate()(work),
        decorate(cost=30, version="2")(work),
        decorate(cost=lambda result: result[0] / 2, version="3")(work),
    )
    for function in (measured, given, told):
        function(5)
    assert 0.05 <= store[measured.key(5)].cost < PATIENCE
    assert store[given.key(5)].cost == 30
    assert store[told.key(5)].cost == 2.5
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="cost"):
            decorate(cost=wrong)(work)


def test_waiting_for_another_computation_is_no_cost_of_ones_own(decorate: Decorate, store: Store) -> None:
    @decorate()
    def latents() -> int:
        threading.Event().wait(0.2)
        return 1

    @decorate()
    def mesh() -> int:
        return latents() + 1

    @decorate()
    async def alatents(n: int) -> int:
        await asyncio.sleep(0.2)
        return n

    @decorate()
    async def amesh() -> int:
        return sum(await asyncio.gather(alatents(1), alatents(2)))

    assert (mesh(), asyncio.run(amesh())) == (2, 3)
    assert store[latents.key()].cost >= 0.2
    assert store[mesh.key()].cost < 0.15
    assert store[alatents.key(2)].cost >= 0.19
    assert store[amesh.key()].cost < 0.15


def test_versions_and_namespaces_keep_results_apart_and_forget_removes_one(decorate: Decorate) -> None:
    calls = []
    draw = _counted(calls)
    versions = [decorate()(draw), decorate(version="2")(draw), decorate(namespace="tenant")(draw)]
    assert len({version.key(1) for version in versions}) == 3
    for version in versions:
        assert version(1) == 1
    assert len(calls) == 3
    assert versions[0].forget(1)
    assert not versions[0].forget(1)
    versions[0](1)
    versions[1](1)
    assert len(calls) == 4


def test_methods_are_keyed_by_the_fields_of_their_dataclass(store: Store) -> None:
    flights, calls = Flights(), []

    @dataclass
    class Pipeline:
        model: str

        def paint(self, prompt: str) -> str:
            calls.append(prompt)
            return f"{prompt} by {self.model}"

        paint = once(store, flights, paint)

    class Opaque:
        paint = once(store, flights, lambda self: "x", name="opaque")

    assert Pipeline("a").paint("p") == Pipeline("a").paint("p") == "p by a"
    assert Pipeline("b").paint("p") == "p by b"
    assert len(calls) == 2
    with pytest.raises(TypeError, match="argument 'self' of opaque"):
        Opaque().paint()


def test_what_cannot_be_told_by_name_or_has_no_one_result_is_refused(decorate: Decorate) -> None:
    for nameless in (lambda: 1, partial(int, "1"), "x".upper):
        with pytest.raises(TypeError, match=r"name|bound"):
            decorate()(nameless)
    assert decorate(name="one")(lambda: 1)() == 1

    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        decorate()(numbers)


def test_failures_are_not_remembered_and_are_each_callers_own(
    decorate: Decorate, threads: ThreadPoolExecutor, store: Store
) -> None:
    calls = []
    both = threading.Event()

    @decorate()
    def flaky() -> str:
        calls.append(1)
        if len(calls) == 1:
            assert both.wait(PATIENCE)
            raise ConnectionError("service is away")
        return "here"

    first, second = threads.submit(flaky), threads.submit(flaky)
    while not calls:
        threading.Event().wait(0.001)
    both.set()
    outcomes = [first.exception(PATIENCE), second.exception(PATIENCE)]
    assert any(isinstance(outcome, ConnectionError) for outcome in outcomes)
    assert flaky() == "here"
    assert len(calls) == 2


def test_two_scripts_with_functions_of_one_name_do_not_share_results(tmp_path: Path) -> None:
    program = """
        import sys
        from meshkiln.flights import Flights
        from meshkiln.once import once
        from meshkiln.store.disk import Disk

        calls = 0
        def generate(n):
            global calls
            calls += 1
            return f"{n} from ANSWER"
        disk = Disk(sys.argv[1])
        print(once(disk, Flights(), generate)(1), calls)
        disk.close()
    """
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(program).replace("ANSWER", name))

    def run(*words: str) -> str:
        words = (sys.executable, *words, str(tmp_path / "store"))
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path).stdout.strip()

    assert run("one.py") == "1 from one 1"
    assert run("two.py") == "1 from two 1"
    assert run(str(tmp_path / "one.py")) == "1 from one 0"
    typed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "was typed in" in typed.stderr
