"""What memory, disk and tiers owe one another: one contract test, run against each of them.

A test module makes a class from `StoreContract` and says how its store is opened:

    class TestMemory(StoreContract):
        def open(self, folder, *, max_bytes=2**20, clock=time.monotonic):
            return Memory(max_bytes=max_bytes, clock=clock)
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshkiln.keys import Key, digest
from meshkiln.store.base import Artifact, Store


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def key(name: int | str) -> Key:
    """A 32-byte key that is the same in every run."""
    return Key(digest(str(name).encode()))


def artifact(name: int | str, size: int = 100, cost: float = 1.0) -> Artifact:
    """`size` bytes that depend on `name`, which took `cost` seconds."""
    pattern = digest(str(name).encode())
    return Artifact.of((pattern * (size // 32 + 1))[:size], cost, "model/gltf-binary", {"stage": "export", "n": 1})


class StoreContract:
    overshoot = 1.0
    """How far over its byte bound a store may be seen, as a factor (disk: 1.05)."""
    fill = 0.8
    """How much of its bound must be artifacts when they are small (disk: 0.5, its bound covers rows and pages)."""
    counts_all = True
    """Whether `stats` counts everything that is listed (tiers: memory may still hold what the disk has evicted)."""

    def open(
        self, folder: Path, *, max_bytes: int = 2**20, clock: Callable[[], float] | None = None
    ) -> Store:  # pragma: no cover
        """A new, empty store; `folder` is empty and the store's own. Without a clock, the store's default one."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, tmp_path: Path, clock: Clock) -> Iterator[Store]:
        store = self.open(tmp_path / "store", clock=clock)
        yield store
        store.close()

    # A mapping whose first stored stays.

    def test_is_a_mutable_mapping(self, store: Store) -> None:
        assert isinstance(store, MutableMapping)

    def test_what_was_put_comes_back_whole(self, store: Store) -> None:
        kept = artifact("mesh", 5000, cost=12.5)
        assert store.put(key("mesh"), kept) is True
        found = store.get(key("mesh"))
        assert found is not None
        assert (found.data, found.digest, found.cost) == (kept.data, kept.digest, 12.5)
        assert (found.media_type, dict(found.provenance)) == ("model/gltf-binary", {"stage": "export", "n": 1})
        assert store[key("mesh")] == found

    def test_an_empty_artifact_is_an_artifact(self, store: Store) -> None:
        assert store.put(key("empty"), Artifact.of(b"", 0.0))
        found = store.get(key("empty"))
        assert found is not None
        assert found.data == b""

    def test_a_large_artifact_comes_back_whole(self, store: Store) -> None:
        kept = artifact("large", 300_001)
        assert store.put(key("large"), kept)
        assert store[key("large")].data == kept.data

    def test_what_is_missing_is_the_default_or_a_key_error(self, store: Store) -> None:
        assert store.get(key("nothing")) is None
        other = artifact("other")
        assert store.get(key("nothing"), other) is other
        with pytest.raises(KeyError):
            store[key("nothing")]

    def test_the_first_stored_stays(self, store: Store) -> None:
        first, second = artifact("first", 100), artifact("second", 300)
        assert store.put(key("k"), first) is True
        assert store.put(key("k"), second) is True
        assert store[key("k")].data == first.data
        assert store.stats().bytes == 100

    def test_replace_puts_it_in_place_of_what_is_there(self, store: Store) -> None:
        store.put(key("k"), artifact("first", 100))
        assert store.put(key("k"), artifact("second", 300), replace=True) is True
        assert store[key("k")].data == artifact("second", 300).data
        assert (len(store), store.stats().bytes) == (1, 300)

    def test_setting_an_item_replaces(self, store: Store) -> None:
        store[key("k")] = artifact("first")
        store[key("k")] = artifact("second")
        assert store[key("k")].data == artifact("second").data

    def test_deleting_forgets_once(self, store: Store) -> None:
        store.put(key("k"), artifact("k"))
        del store[key("k")]
        assert store.get(key("k")) is None
        assert (len(store), store.stats().bytes) == (0, 0)
        with pytest.raises(KeyError):
            del store[key("k")]

    def test_deleting_many_says_which_were_held(self, store: Store) -> None:
        for n in range(6):
            store.put(key(n), artifact(n, 100 if n % 2 else 50_000))
        asked = [key(n) for n in (1, 2, 4, 7, 8)]
        assert store.delete_many(asked) == {key(1), key(2), key(4)}
        assert set(store) == {key(0), key(3), key(5)}
        assert len(store) == 3
        assert store.delete_many(asked) == set()
        assert store.delete_many([]) == set()

    def test_clear_forgets_everything(self, store: Store) -> None:
        for n in range(20):
            store.put(key(n), artifact(n))
        store.clear()
        assert (len(store), list(store), store.stats().bytes) == (0, [], 0)

    def test_lists_the_keys_it_holds(self, store: Store) -> None:
        for n in range(5):
            store.put(key(n), artifact(n))
        assert set(store) == {key(n) for n in range(5)}
        assert len(store) == 5
        assert key(3) in store
        assert key(5) not in store

    def test_deleting_while_iterating_is_allowed(self, store: Store) -> None:
        for n in range(50):
            store.put(key(n), artifact(n))
        for held in store:
            del store[held]
        assert len(store) == 0

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "replace", "get", "delete", "contains", "list"]),
                st.integers(0, 7),
                st.integers(0, 200),
            ),
            max_size=60,
        )
    )
    def test_agrees_with_a_dict_while_nothing_has_to_go(self, steps: list[tuple[str, int, int]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store, model = self.open(Path(folder) / "store"), dict[Key, bytes]()
            for n, (step, name, size) in enumerate(steps):
                k, made = key(name), artifact(f"{name} {n}", size)
                if step == "put":
                    assert store.put(k, made)
                    model.setdefault(k, made.data)
                elif step == "replace":
                    assert store.put(k, made, replace=True)
                    model[k] = made.data
                elif step == "get":
                    found = store.get(k)
                    assert (found and found.data) == (None if found is None else model[k])
                    assert (found is None) == (k not in model)
                elif step == "delete" and k in model:
                    del store[k], model[k]
                elif step == "contains":
                    assert (k in store) == (k in model)
                elif step == "list":
                    assert set(store) == set(model)
            assert store.stats().bytes == sum(map(len, model.values()))
            assert len(store) == len(model) == store.stats().entries
            store.close()

    # Bounds.

    def test_stays_within_its_bytes(self, tmp_path: Path, clock: Clock) -> None:
        store = self.open(tmp_path / "store", max_bytes=100_000, clock=clock)
        for n in range(300):
            store.put(key(n), artifact(n, 1000))
            assert store.stats().bytes <= 100_000 * self.overshoot
        assert store.stats().bytes >= 100_000 * self.fill, "a store that throws away far more than it must is no store"
        assert store.stats().evictions["size"] == 300 - len(store) or not self.counts_all
        assert store.stats().evicted["size"] == {"export": store.stats().evictions["size"]}
        store.close()

    def test_an_artifact_larger_than_the_store_is_not_kept_and_counted(self, tmp_path: Path, clock: Clock) -> None:
        store = self.open(tmp_path / "store", max_bytes=10_000, clock=clock)
        store.put(key("small"), artifact("small", 100))
        assert store.put(key("huge"), artifact("huge", 20_000)) is False
        assert store.get(key("huge")) is None
        assert key("small") in store, "nothing had to go for what could not be kept"
        assert store.stats().refused == 1
        store.close()

    def test_the_dear_outlive_the_cheap(self, tmp_path: Path, clock: Clock) -> None:
        store = self.open(tmp_path / "store", max_bytes=30_000, clock=clock)
        for n in range(10):
            store.put(key(f"dear {n}"), artifact(n, 1000, cost=60.0))
        for n in range(100):
            store.put(key(f"cheap {n}"), artifact(n, 1000, cost=0.1))
        assert all(key(f"dear {n}") in store for n in range(10))
        store.close()

    def test_the_small_outlive_the_large_of_equal_cost(self, tmp_path: Path, clock: Clock) -> None:
        store = self.open(tmp_path / "store", max_bytes=200_000, clock=clock)
        for n in range(10):
            store.put(key(f"latents {n}"), artifact(n, 100))
        for n in range(30):
            store.put(key(f"mesh {n}"), artifact(n, 50_000))
        assert all(key(f"latents {n}") in store for n in range(10))
        store.close()

    def test_what_a_miss_costs_this_tier_outweighs_what_it_cost_to_make(self, tmp_path: Path, clock: Clock) -> None:
        store = self.open(tmp_path / "store", max_bytes=20_000, clock=clock)
        for n in range(10):
            store.put(key(f"at hand below {n}"), artifact(n, 1000, cost=60.0), miss_cost=0.001)
        for n in range(10):
            store.put(key(f"nowhere else {n}"), artifact(n, 1000, cost=1.0))
        for n in range(10):
            store.put(key(f"also nowhere else {n}"), artifact(n, 1000, cost=1.0))
        assert sum(key(f"at hand below {n}") in store for n in range(10)) <= 2
        store.close()

    def test_what_is_asked_for_outlives_what_is_not(self, tmp_path: Path, clock: Clock) -> None:
        store = self.open(tmp_path / "store", max_bytes=30_000, clock=clock)
        for n in range(10):
            store.put(key(f"wanted {n}"), artifact(n, 1000))
        for n in range(200):
            store.put(key(f"once {n}"), artifact(n, 1000))
            for m in range(10):
                store.get(key(f"wanted {m}"))
        assert all(key(f"wanted {n}") in store for n in range(10))
        store.close()

    # Time to live.

    def test_is_not_returned_past_its_time(self, store: Store, clock: Clock) -> None:
        store.put(key("brief"), artifact("brief"), ttl=60.0)
        store.put(key("lasting"), artifact("lasting"))
        clock.now += 59.0
        assert store.get(key("brief")) is not None
        clock.now += 2.0
        assert store.get(key("brief")) is None
        assert key("brief") not in store
        assert store.get(key("lasting")) is not None
        assert store.stats().evictions["expired"] == 1

    def test_what_is_past_its_time_can_be_put_again(self, store: Store, clock: Clock) -> None:
        store.put(key("k"), artifact("old"), ttl=60.0)
        clock.now += 61.0
        assert store.put(key("k"), artifact("new"), ttl=60.0)
        assert store[key("k")].data == artifact("new").data
        clock.now += 59.0
        assert store.get(key("k")) is not None
        clock.now += 2.0
        assert store.get(key("k")) is None

    # Statistics.

    def test_counts_hits_misses_puts_and_seconds_saved(self, store: Store) -> None:
        store.put(key("a"), artifact("a", 100, cost=2.0))
        store.put(key("b"), artifact("b", 200, cost=0.5))
        store.put(key("b"), artifact("b", 200, cost=0.5))  # already there: not a second put
        for name in ("a", "a", "b", "c", "a"):
            store.get(key(name))
        assert key("a") in store  # asking whether is not a hit
        assert key("c") not in store  # nor a miss
        now = store.stats()
        assert (now.entries, now.bytes, now.puts) == (2, 300, 2)
        assert (now.hits, now.misses) == (4, 1)
        assert now.seconds_saved == pytest.approx(3 * 2.0 + 0.5)

    def test_keeps_counts_of_what_is_gone(self, store: Store) -> None:
        store.put(key("a"), artifact("a", cost=2.0))
        store.get(key("a"))
        store.put(key("a"), artifact("a again", cost=3.0), replace=True)
        store.get(key("a"))
        del store[key("a")]
        assert (store.stats().hits, store.stats().seconds_saved) == (2, pytest.approx(5.0))

    # Many at once.

    def test_many_threads_agree(self, tmp_path: Path) -> None:
        store = self.open(tmp_path / "store", max_bytes=40_000)
        made = {key(n): artifact(n, 1000, cost=1.0) for n in range(80)}
        wrong: list[object] = []
        gets = 400

        def ask(offset: int) -> None:
            keys = list(made)
            try:
                for n in range(gets):
                    k = keys[(n * 7 + offset) % len(keys)]
                    found = store.get(k)
                    if found is None:
                        store.put(k, made[k])
                    elif found.data != made[k].data:
                        wrong.append(k)
                    if n % 50 == 0:
                        list(store)
                    if n % 90 == 0:
                        with contextlib.suppress(KeyError):  # somebody else may have been first
                            del store[k]
            except BaseException as error:
                wrong.append(error)
                raise

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=ask, args=(11 * n,)) for n in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert not wrong
        now = store.stats()
        assert now.hits + now.misses == 6 * gets
        assert now.seconds_saved == pytest.approx(now.hits * 1.0)
        assert now.bytes == 1000 * len(store) or not self.counts_all
        assert now.bytes <= 40_000 * self.overshoot
        store.close()

    def test_closing_twice_is_closing(self, store: Store) -> None:
        store.close()
        store.close()
