"""Threads and items a call: measured once, kept, and in no key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshkiln.engines.vecset import ENGINE, runtime, tuning
from meshkiln.engines.vecset.manifest import manifest
from meshkiln.errors import BadParameter
from meshkiln.kiln import open_store

pytestmark = pytest.mark.skipif(not manifest().files, reason="the weights have not been made: make train")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MESHKILN_CACHE_DIR", str(tmp_path / "cache"))
    tuning.stored.cache_clear()
    runtime.provider.cache_clear()
    yield tmp_path / "cache"
    tuning.stored.cache_clear()
    runtime.provider.cache_clear()


class Machine:
    """Sessions that take the time they are told, by threads and items."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, dict[int, float]]) -> None:
        self.seconds, self.now, self.opened = seconds, 0.0, 0
        monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def __call__(self, name: str, threads: int) -> Any:
        self.opened += 1

        def run(outputs: None, given: dict[str, Any]) -> None:
            self.now += self.seconds[threads][len(given["x"])]

        return SimpleNamespace(run=run, get_inputs=list)


def test_the_quickest_is_found_and_kept_and_a_tie_takes_the_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    even = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}
    machine = Machine(monkeypatch, {1: even, 2: {1: 0.6, 2: 1.0, 4: 1.99, 8: 4.2, 16: 9.0}})
    found = tuning.measure(2, machine)
    assert (found.threads, found.batch) == (2, 2)
    assert tuning.stored(2) == found
    assert tuning.stored(7) is None
    monkeypatch.setenv("MESHKILN_THREADS", "2")
    assert (runtime.threads(), runtime.batch()) == (2, 2)
    machine = Machine(monkeypatch, {1: even, 4: {size: t * 0.97 for size, t in even.items()}})
    assert tuning.measure(4, machine).threads == 1
    assert tuning.measure(4, machine).batch == 1
    assert tuning.stored(2) == found


def test_what_was_found_for_other_weights_or_is_damaged_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    machine = Machine(monkeypatch, {1: dict.fromkeys((1, 2, 4, 8, 16), 1.0)})
    tuning.measure(1, machine)
    kept = json.loads(tuning.file().read_text())
    tuning.file().write_text(json.dumps({f"other {name}": value for name, value in kept.items()}))
    tuning.stored.cache_clear()
    assert tuning.stored(1) is None
    tuning.file().write_text("{")
    tuning.stored.cache_clear()
    assert tuning.stored(1) is None
    assert tuning.measure(1, machine).batch == 16


@pytest.mark.parametrize("damaged", [{"threads": 0}, {"batch": 0}, {"batch": "4"}, {"milliseconds": None}])
def test_numbers_that_cannot_be_are_not_believed(
    damaged: dict[str, Any], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    tuning.measure(1, Machine(monkeypatch, {1: dict.fromkeys((1, 2, 4, 8, 16), 1.0)}))
    kept = json.loads(tuning.file().read_text())
    tuning.file().write_text(json.dumps({name: {**value, **damaged} for name, value in kept.items()}))
    tuning.stored.cache_clear()
    assert tuning.stored(1) is None


@pytest.mark.parametrize("there", ["[]", "3", '"x"'])
def test_a_file_that_holds_something_else_is_replaced(there: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    cache.mkdir()
    tuning.file().write_text(there)
    found = tuning.measure(1, Machine(monkeypatch, {1: dict.fromkeys((1, 2, 4, 8, 16), 1.0)}))
    assert tuning.stored(1) == found


def test_what_cannot_be_kept_is_said_and_not_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MESHKILN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("MESHKILN_THREADS", "1")
    monkeypatch.setattr(runtime, "opened", Machine(monkeypatch, {1: dict.fromkeys((1, 2, 4, 8, 16), 1.0)}))
    assert "cannot be kept" in runtime.measured()


def test_processes_that_measure_at_one_time_do_not_take_each_other_s_drafts(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    found = tuning.measure(1, Machine(monkeypatch, {1: dict.fromkeys((1, 2, 4, 8, 16), 1.0)}))
    write = Path.write_text

    def and_somebody_else(self: Path, text: str) -> int:
        # Between this one's draft and its taking effect another process does all of it.
        monkeypatch.setattr(Path, "write_text", write)
        written = write(self, text)
        tuning._keep(2, found)
        return written

    monkeypatch.setattr(Path, "write_text", and_somebody_else)
    tuning._keep(1, found)
    assert tuning.stored(1) == found
    assert sorted(cache.iterdir()) == [tuning.file()]


def test_a_cache_folder_that_began_with_a_measurement_becomes_a_store(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    tuning.measure(1, Machine(monkeypatch, {1: dict.fromkeys((1, 2, 4, 8, 16), 1.0)}))
    assert cache.stat().st_mode & 0o777 == 0o700
    open_store().close()


def test_neither_is_in_a_key() -> None:
    names = {name for stage in ENGINE.stages for name in stage.parameters}
    assert not {"threads", "batch"} & names


def test_a_provider_that_is_not_installed_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.provider() == "cpu"
    for asked in ("cuda", "magic"):
        monkeypatch.setenv("MESHKILN_EXECUTION_PROVIDER", asked)
        runtime.provider.cache_clear()
        with pytest.raises(BadParameter, match=f"execution_provider={asked} is not in .* which has .*cpu"):
            runtime.provider()
