"""Which artifact goes: the shipped policy's promises, the peers it is compared with, and the offline bound."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkiln.keys import Key
from meshkiln.store.memory import Memory
from meshkiln.store.policies import Entry, GreedyDual, Policy
from store_contract import artifact, key

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import peers
import policies as benchmark
from traces import Step, Trace

PEERS: dict[str, Callable[[int], Policy]] = {
    "ours": lambda _: GreedyDual(),
    "lru": lambda _: peers.Lru(),
    "lfu": lambda _: peers.Lfu(),
    "sieve": lambda _: peers.Sieve(),
    "s3-fifo": peers.S3Fifo,
    "w-tinylfu": peers.WTinyLfu,
    "gdsf": lambda _: peers.GreedyDualStrict(),
    "lhd": lambda _: peers.Lhd(),
    "lhd by cost": lambda _: peers.Lhd(cost_blind=False),
}


def entry(name: int | str, size: int = 100, cost: float = 1.0) -> Entry:
    return Entry(key(name), artifact(name, size), cost)


def order(policy: Policy, count: int) -> list[Key]:
    """The keys in the order in which they go."""
    going = []
    for _ in range(count):
        gone = policy.evict()
        gone.artifact = None
        going.append(gone.key)
    return going


# GreedyDual


def test_the_cheapest_per_byte_goes_first() -> None:
    policy = GreedyDual()
    for name, size, cost in (
        ("mesh", 2_000_000, 0.3),
        ("latents", 8192, 30.0),
        ("record", 32, 0.05),
        ("glb", 10**6, 9.0),
    ):
        policy.add(entry(name, size, cost))
    assert order(policy, 4) == [key("mesh"), key("glb"), key("record"), key("latents")]


def test_of_equals_the_first_to_come_goes_first() -> None:
    policy = GreedyDual()
    for n in range(20):
        policy.add(entry(n))
    assert order(policy, 20) == [key(n) for n in range(20)]


def test_hits_count_when_the_choice_is_made() -> None:
    policy, asked, unasked = GreedyDual(), entry("asked"), entry("unasked")
    policy.add(asked)
    policy.add(unasked)
    asked.hits = 3
    assert order(policy, 2) == [key("unasked"), key("asked")]


def test_what_is_dear_but_never_asked_for_goes_in_the_end() -> None:
    policy = GreedyDual()
    policy.add(entry("dear", cost=20.0))
    for n in range(10_000):
        policy.add(entry(n))
        if policy.evict().key == key("dear"):
            break
    assert 20 < n < 1_000, "it outlives many that are cheap, not all"


def test_what_was_popular_does_not_stay_for_ever() -> None:
    def outlived(popular: int, limit: int) -> int:
        policy, star = GreedyDual(most_uses=limit), entry("star")
        policy.add(star)
        star.hits = popular
        for n in range(20_000):
            policy.add(entry(n))
            if policy.evict() is star:
                return n
        return 20_000

    assert outlived(10**6, limit=15) == outlived(14, limit=15) < outlived(10**6, limit=10**9)


def test_what_comes_back_is_worth_more_than_what_is_new() -> None:
    policy = GreedyDual()
    for n in range(10):
        policy.add(entry(n))
    back = policy.evict()
    policy.add(entry("new"))
    policy.add(Entry(back.key, artifact(0), 1.0))
    policy.add(entry("newer"))
    going = order(policy, 12)
    assert going[-1] == back.key


def test_ghosts_are_bounded() -> None:
    policy = GreedyDual(ghosts=4.0)
    for n in range(200):
        policy.add(entry(n))
    for n in range(200, 20_000):
        policy.add(entry(n))
        policy.evict().artifact = None
    assert 200 < len(policy._newer) + len(policy._older) <= 4 * 200 + 2


def test_what_was_deleted_is_not_waiting_for_ever() -> None:
    policy, kept = GreedyDual(), [entry(n, cost=1.0 + n) for n in range(100)]
    for held in kept:
        policy.add(held)
    for n in range(100, 5_000):
        gone = entry(n, cost=50.0)
        policy.add(gone)
        policy.remove(gone)
        gone.artifact = None
    assert policy._waiting() < 400
    assert sorted(order(policy, 100)) == sorted(held.key for held in kept)


@given(st.lists(st.tuples(st.integers(0, 10**7), st.floats(1e-6, 1e5)), min_size=1, max_size=60))
def test_nothing_goes_before_what_is_worth_clearly_less(made: list[tuple[int, float]]) -> None:
    """With no hits and no arrivals in between, the order is by worth, but for rounding: a quarter of an octave."""
    policy = GreedyDual(exponent=1.0)
    worth = {}
    for n, (size, cost) in enumerate(made):
        held = entry(n, min(size, 1000), cost)
        held.size = size
        worth[held.key] = cost / (size + 1)
        policy.add(held)
    going = [worth[k] for k in order(policy, len(made))]
    for n, gone in enumerate(going):
        assert gone <= min(going[n:]) * 2**0.25 * 1.13 * (1 + 1e-9)


@pytest.mark.parametrize("cost", [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 5e-324])
def test_a_senseless_cost_does_not_spoil_the_order_of_the_others(cost: float) -> None:
    policy = GreedyDual()
    for n in range(5):
        policy.add(entry(n, cost=1.0 + n))
        policy.add(entry(f"odd {n}", cost=cost))
    going = [k for k in order(policy, 10) if k in {key(n) for n in range(5)}]
    assert going == [key(n) for n in range(5)]
    policy.add(entry("a"))
    policy.add(entry("b", cost=9.0))
    assert order(policy, 2) == [key("a"), key("b")], "and ageing goes on"


# Every policy, in the real store


requests = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 60), st.floats(0.01, 100), st.booleans()), min_size=1, max_size=150
)


@pytest.mark.parametrize("name", PEERS)
@settings(max_examples=40, deadline=None)
@given(asked=requests)
def test_every_policy_keeps_the_store_whole(name: str, asked: list[tuple[int, int, float, bool]]) -> None:
    store = Memory(max_bytes=150, policy=PEERS[name](150))
    held: dict[Key, int] = {}
    for number, size, cost, delete in asked:
        k = key(number)
        if store.get(k) is None:
            store.put(k, artifact(number, size, cost))
            held[k] = size
        elif delete:
            del store[k]
        assert store.stats().bytes == sum(held[k] for k in store) <= 150
    store.resize(max_bytes=0)
    assert len(store) == 0


def traces(draw: st.DrawFn) -> Trace:
    drawn = st.tuples(st.integers(1, 50), st.floats(0.1, 50))
    artifacts = draw(st.lists(drawn, min_size=2, max_size=8))
    order = draw(st.lists(st.integers(0, len(artifacts) - 1), min_size=5, max_size=80))
    chain = draw(st.booleans())
    made = []
    for number in order:
        size, cost = artifacts[number]
        last = Step(key(number), size, cost)
        made.append((Step(key(f"latents {number}"), 1, cost), last) if chain else (last,))
    return Trace("drawn", made, "")


@pytest.mark.parametrize("name", PEERS)
@settings(max_examples=40, deadline=None)
@given(trace=st.composite(traces)(), max_bytes=st.integers(1, 200))
def test_no_policy_saves_more_than_the_offline_bound(name: str, trace: Trace, max_bytes: int) -> None:
    saved = benchmark.replay(trace, PEERS[name](max_bytes), max_bytes)["saved"]
    assert saved <= benchmark.bound(trace, max_bytes) + 1e-9


def test_the_bound_is_every_repeat_when_everything_fits() -> None:
    trace = Trace("all", [(Step(key(n % 5), 100, 2.0),) for n in range(50)], "")
    assert benchmark.bound(trace, 500) == pytest.approx(45 / 50)
    assert benchmark.replay(trace, GreedyDual(), 500)["saved"] == pytest.approx(45 / 50)
    assert benchmark.bound(trace, 100) < 0.5


# The peers do what their papers say


def ask(policy: Policy, names: str, entries: int) -> set[str]:
    """What a store of `entries` artifacts of one size holds after `names` were asked for, a letter each."""
    store = Memory(max_bytes=100 * entries, policy=policy)
    for name in names:
        if store.get(key(name)) is None:
            store.put(key(name), artifact(name, 100))
    return {name for name in set(names) if key(name) in store}


def test_lru_keeps_the_latest() -> None:
    assert ask(peers.Lru(), "abcdaeb", 3) == {"a", "e", "b"}


def test_lfu_keeps_the_most_often_used() -> None:
    assert ask(peers.Lfu(), "aaabbcdefg", 3) == {"a", "b", "g"}


def test_sieve_passes_over_the_visited_where_they_are() -> None:
    # The hand clears A, takes B, and goes on from there: C is next, although A has been there for longer.
    assert ask(peers.Sieve(), "abcad", 3) == {"a", "c", "d"}
    assert ask(peers.Sieve(), "abcade", 3) == {"a", "d", "e"}


def test_s3_fifo_lets_what_is_asked_for_once_pass() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    popular = "ABCDE" * 4
    assert ask(peers.S3Fifo(1000), popular + letters, 10) >= set("ABCDE")
    assert not ask(peers.Lru(), popular + letters, 10) & set("ABCDE")


def test_w_tinylfu_admits_by_frequency() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    popular = "ABCDEFGH" * 4
    assert ask(peers.WTinyLfu(1000), popular + letters, 10) >= set("ABCDEFGH")


def test_gdsf_and_ours_agree_on_what_is_far_apart() -> None:
    for policy in (GreedyDual(), peers.GreedyDualStrict()):
        store = Memory(max_bytes=1000, policy=policy)
        for n in range(200):
            store.put(key(n), artifact(n, 100, cost=50.0 if n < 5 else 0.01))
        assert all(key(n) in store for n in range(5))


def test_lhd_learns_what_comes_back() -> None:
    store = Memory(max_bytes=5000, policy=peers.Lhd())
    once, hits = 1000, 0
    for n in range(20_000):
        name = n // 2 % 30 if n % 2 else (once := once + 1)
        if store.get(key(name)) is None:
            store.put(key(name), artifact(name, 100))
        elif n > 15_000:
            hits += 1
    assert hits > 0.75 * 2500, "sixty are asked for in turn and fifty fit: the latest fifty would hit none"
