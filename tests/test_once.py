"""`once`: calls computed once, keyed by arguments, with results that come back as they were."""

from __future__ import annotations

import asyncio
import gc
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
from hypothesis import given
from hypothesis import strategies as st

from meshkiln.engines.function import ARRAYS, BYTES, JSON, TEXT, pack_result, unpack_result
from meshkiln.errors import Cancelled
from meshkiln.flights import Flights
from meshkiln.once import once
from meshkiln.store.base import Store
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from meshkiln.store.tiers import Tiers

PATIENCE = 30.0
Decorate = Callable[..., Callable[[Callable[..., Any]], Any]]


@pytest.fixture(params=["memory", "tiers"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = Memory() if request.param == "memory" else Tiers(Memory(), Disk(tmp_path / "store"))
    yield store
    store.close()


@pytest.fixture
def flights() -> Flights:
    return Flights()


@pytest.fixture
def decorate(store: Store, flights: Flights) -> Decorate:
    return lambda **words: lambda function: once(store, flights, function, **words)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


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


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return repr(a) == repr(b)


@given(json_values | st.binary())
def test_results_come_back_with_their_values_types_and_order(result: Any) -> None:
    assert _same(unpack_result(*pack_result(result, "f")), result)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        np.array(2.5),
        np.zeros((0, 3), np.float32),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.array([np.nan, np.inf], np.float16),
        np.ones(2, np.complex64),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_alone_or_named(array: np.ndarray[Any, Any]) -> None:
    data, media_type = pack_result(array, "f")
    assert media_type == ARRAYS
    back = unpack_result(data, media_type)
    named = unpack_result(*pack_result({"x": array, "y": array}, "f"))
    assert list(named) == ["x", "y"]
    for one in (back, named["x"], named["y"]):
        assert (one.shape, one.dtype) == (array.shape, array.dtype.newbyteorder("="))
        np.testing.assert_array_equal(one, array)


@pytest.mark.parametrize(
    ("result", "media_type"), [(b"", BYTES), ("", TEXT), ({}, JSON), (None, JSON), ([b"".decode()], JSON)]
)
def test_media_types_say_what_is_kept(result: Any, media_type: str) -> None:
    assert pack_result(result, "f")[1] == media_type


@pytest.mark.parametrize(
    ("result", "kind", "text"),
    [
        ((1, 2), TypeError, "what .*paint returned is a builtins.tuple"),
        (object(), TypeError, "what .*paint returned is a builtins.object"),
        (bytearray(b"x"), TypeError, "bytearray"),
        ({"a": {1: 2}}, TypeError, r"\['a'\] has the key 1"),
        ({"a": [np.float64(1)]}, TypeError, r"\['a'\]\[0\] is a numpy.float64"),
        ({"a": np.ones(1), "b": 2}, TypeError, r"\['a'\] is a numpy.ndarray"),
        ({"": np.ones(1)}, TypeError, "not empty"),
        (np.array(["a"]), TypeError, "array '' is of <U1"),
        (np.array([1], complex), TypeError, "complex128"),
        ([float("inf")], ValueError, r"\[0\] is inf"),
    ],
)
def test_a_result_that_would_not_come_back_as_it_was_is_refused(
    decorate: Decorate, store: Store, result: object, kind: type[Exception], text: str
) -> None:
    @decorate()
    def paint() -> object:
        return result

    with pytest.raises(kind, match=text):
        paint()
    assert len(store) == 0


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


def test_async_functions_compute_once_on_the_callers_loop(decorate: Decorate) -> None:
    calls = []

    @decorate()
    async def paint(prompt: str) -> bytes:
        calls.append(asyncio.get_running_loop())
        await asyncio.sleep(0.01)
        return prompt.encode()

    async def main() -> None:
        assert set(await asyncio.gather(*(paint("a") for _ in range(200)))) == {b"a"}
        assert await paint("a") == b"a"
        assert calls == [asyncio.get_running_loop()]

    asyncio.run(main())
    assert asyncio.iscoroutinefunction(paint)
    assert asyncio.run(paint("a")) == b"a"
    assert len(calls) == 1


def test_an_async_function_stops_when_everybody_left(decorate: Decorate, flights: Flights) -> None:
    async def main() -> None:
        begun, stopped = asyncio.Event(), asyncio.Event()

        @decorate()
        async def paint() -> bytes:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.set()
                raise
            return b""

        tasks = [asyncio.create_task(paint()) for _ in range(3)]
        await begun.wait()
        while flights.waiters(paint.key()) < 3:
            await asyncio.sleep(0.001)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks[:2])
        assert not stopped.is_set()
        tasks[2].cancel()
        async with asyncio.timeout(PATIENCE):
            await stopped.wait()

    asyncio.run(main())


def test_an_async_function_starts_anew_on_another_loop_when_the_first_ends(
    decorate: Decorate, threads: ThreadPoolExecutor, flights: Flights
) -> None:
    loops, go = [], threading.Event()
    flights_joined = threading.Event()

    @decorate()
    async def paint() -> str:
        loops.append(asyncio.get_running_loop())
        if len(loops) == 1:
            await asyncio.Event().wait()
        return "done"

    async def leave_in_a_while() -> None:
        task = asyncio.create_task(paint())
        await asyncio.to_thread(go.wait, PATIENCE)
        del task

    async def stay() -> str:
        task = asyncio.create_task(paint())
        while flights.waiters(paint.key()) < 2:
            await asyncio.sleep(0.001)
        flights_joined.set()
        return await task

    first = threads.submit(asyncio.run, leave_in_a_while())
    while not loops:
        threading.Event().wait(0.001)
    second = threads.submit(asyncio.run, stay())
    assert flights_joined.wait(PATIENCE)
    go.set()
    first.result(PATIENCE)
    assert second.result(PATIENCE) == "done"
    assert len(set(map(id, loops))) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_async_function_whose_loop_just_stops_starts_anew(decorate: Decorate, threads: ThreadPoolExecutor) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @decorate()
    async def paint() -> str:
        loops.append(asyncio.get_running_loop())
        if len(loops) == 1:
            await asyncio.Event().wait()
        return "done"

    stopped = asyncio.new_event_loop()
    task = stopped.create_task(paint())

    async def begun() -> None:
        while not loops:
            await asyncio.sleep(0.001)

    stopped.run_until_complete(begun())
    assert threads.submit(asyncio.run, paint()).result(PATIENCE) == "done"
    task.cancel()
    stopped.run_until_complete(asyncio.wait([task]))
    stopped.close()
    gc.collect()


def test_an_async_function_that_cancels_itself_says_so(decorate: Decorate) -> None:
    @decorate()
    async def paint() -> str:
        raise asyncio.CancelledError

    with pytest.raises(Cancelled, match="cancelled from within"):
        asyncio.run(paint())


def test_async_functions_may_call_one_another_but_not_themselves(decorate: Decorate) -> None:
    @decorate()
    async def inner(n: int) -> int:
        return n + 1

    @decorate()
    async def outer(n: int) -> int:
        return sum(await asyncio.gather(*(inner(i) for i in range(n))))

    @decorate()
    async def ouroboros(n: int) -> int:
        return await ouroboros(n)

    assert asyncio.run(outer(4)) == 10
    with pytest.raises(RecursionError):
        asyncio.run(asyncio.wait_for(ouroboros(1), PATIENCE))


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
