"""Which policy saves most generation seconds at equal bytes: ours, those it is compared with, and an offline bound.

    MESHKILN_DATA=... python benchmarks/policies.py

Every policy runs inside the real `Memory` store: a request asks for its last artifact first, then for those before it;
what is missing is made and put. A store of 1 % (10 %) holds that share of the bytes of all artifacts of the trace.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import peers
import traces
from meshkiln.keys import Digest, Key
from meshkiln.store import memory, policies
from meshkiln.store.base import Artifact
from meshkiln.store.memory import Memory
from meshkiln.store.policies import GreedyDual, Policy
from results_file import Bar, Results, data_folder
from traces import Request, Trace

SHARES = (0.01, 0.10)
OURS = "Meshkiln"
PLAIN = "GDSF"
BLIND_GDSF = "GDSF, every cost 1"
COST_BLIND = ("LRU", "LFU", "SIEVE", "S3-FIFO", "W-TinyLFU", "LHD")
ABLATIONS: dict[str, Callable[[], Policy]] = {
    "without ghosts": lambda: GreedyDual(ghosts=0),
    "without a limit on uses": lambda: GreedyDual(most_uses=10**9),
    "exponent 1": lambda: GreedyDual(exponent=1.0),
    "none of the three (lazy plain GDSF)": lambda: GreedyDual(1.0, 10**9, 0),
}


def contenders(max_bytes: int) -> dict[str, Callable[[], Policy]]:
    """Name -> a new policy for a store of `max_bytes`."""
    return {
        OURS: GreedyDual,
        PLAIN: peers.GreedyDualStrict,
        BLIND_GDSF: lambda: peers.GreedyDualStrict(cost_blind=True),
        "LRU": peers.Lru,
        "LFU": peers.Lfu,
        "SIEVE": peers.Sieve,
        "S3-FIFO": lambda: peers.S3Fifo(max_bytes),
        "W-TinyLFU": lambda: peers.WTinyLfu(max_bytes),
        "LHD": peers.Lhd,
        "LHD x cost": lambda: peers.Lhd(cost_blind=False),
        **ABLATIONS,
    }


def replay(trace: Trace, policy: Policy, max_bytes: int) -> dict[str, float]:
    """The share of the trace's seconds that a store with `policy` saves, and of its requests that it answers whole."""
    store = Memory(max_bytes=max_bytes, max_entries=len(trace.requests) * 2, policy=policy)
    # Artifacts of real sizes that share one buffer: a store looks at the length of the bytes, not at the bytes.
    buffer = memoryview(bytes(max(step.size for request in trace.requests for step in request)))
    saved, whole = 0.0, 0
    for request in trace.requests:
        found = len(request)
        while found and store.get(Key(request[found - 1].key)) is None:
            found -= 1
        saved += sum(step.cost for step in request[:found])
        whole += found == len(request)
        for step in request[found:]:
            data: bytes = buffer[: step.size]  # type: ignore[assignment]
            store.put(Key(step.key), Artifact(data, Digest(step.key), step.cost))
    return {"saved": saved / trace.seconds, "hits": whole / len(trace.requests)}


def bound(trace: Trace, max_bytes: int) -> float:
    """A share of seconds that no policy can save more than, even one that knows the future.

    A repeat is saved by holding its artifact since it was last used: size x requests in between. The space of the whole
    run is `max_bytes` x requests, and it is filled with the dearest repeats per space, the last one in part. It is the
    relaxation PFOO-L of Berger, Beckmann and Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object
    Sizes", SIGMETRICS 2018, with seconds for hits. Of a chain one artifact or another can be held; that choice is
    relaxed to fractions too, as steps up the concave hull of seconds over bytes.
    """
    last: dict[bytes, int] = {}
    repeats: list[tuple[float, float, float]] = []
    for now, request in enumerate(trace.requests):
        final = request[-1].key
        if final in last:
            for size, seconds in concave_steps(request):
                space = size * (now - last[final])
                repeats.append((seconds / space, space, seconds))
        last[final] = now
    left, saved = float(max_bytes * len(trace.requests)), 0.0
    for _, space, cost in sorted(repeats, reverse=True):
        saved += cost * min(1.0, left / space)
        left -= space
        if left <= 0:
            break
    return saved / trace.seconds


def concave_steps(request: Request) -> list[tuple[int, float]]:
    """(bytes more, seconds more) from one choice of artifact to hold to the next, each worth less per byte."""
    costs = itertools.accumulate(step.cost for step in request)
    hull = [(0, 0.0)]
    for size, seconds in sorted((max(step.size, 1), cost) for step, cost in zip(request, costs, strict=True)):
        if seconds <= hull[-1][1]:
            continue
        # A choice from which the next one is the steeper way up is never the one to make.
        while hull[-1][0] == size or (
            len(hull) > 1
            and (seconds - hull[-1][1]) / (size - hull[-1][0])
            >= (hull[-1][1] - hull[-2][1]) / (hull[-1][0] - hull[-2][0])
        ):
            hull.pop()
        hull.append((size, seconds))
    return [(size - s, seconds - c) for (s, c), (size, seconds) in itertools.pairwise(hull)]


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    results = Results(
        "policies",
        sources=[memory.__file__, policies.__file__, peers.__file__, traces.__file__],
    )
    figures: dict[str, dict[str, object]] = {}
    gains: dict[str, float] = {}
    gains_over_blind_gdsf: dict[str, float] = {}
    against_best: dict[str, float] = {}
    notes = []
    for make in traces.all_of(data_folder()):
        trace = make()
        notes.append(f"{trace.name}: {trace.notes}; {len(trace.requests)} requests.")
        for share in SHARES:
            size = int(trace.footprint * share)
            place = f"{trace.name}, {share:.0%}"
            best = results.item(f"{place}: bound", lambda trace=trace, size=size: bound(trace, size))
            found = {
                name: results.item(f"{place}: {name}", lambda p=policy, t=trace, s=size: replay(t, p(), s))
                for name, policy in contenders(size).items()
            }
            saved = {name: figure["saved"] for name, figure in found.items()}
            others = {name: value for name, value in saved.items() if name != OURS and name not in ABLATIONS}
            blind = max(COST_BLIND, key=lambda name: saved[name])
            gap = best - saved["LRU"]
            if share == SHARES[0]:
                gains[trace.name] = saved[OURS] / saved[blind]
                gains_over_blind_gdsf[trace.name] = saved[OURS] / max(saved[blind], saved[BLIND_GDSF])
            against_best[place] = saved[OURS] / max(others.values())
            figures[place] = {
                "store_bytes": size,
                "bound": round(best, 4),
                "seconds_saved": {name: round(value, 4) for name, value in saved.items()},
                "requests_answered_whole": {name: round(figure["hits"], 4) for name, figure in found.items()},
                "share_of_gap_closed": {name: round((v - saved["LRU"]) / gap, 3) for name, v in saved.items()},
                "best_cost_blind": blind,
            }
            print(f"\n{place} of the bytes; share of the gap from LRU to the offline bound closed")
            print(f"  {'offline bound':38}{best:8.4f}")
            for name, value in sorted(saved.items(), key=lambda item: -item[1]):
                print(f"  {name:38}{value:8.4f}{(value - saved['LRU']) / gap:8.1%}")
    named = [gains[name] for name in ("gentd26", "cdn", "drift and scans")]
    print()
    results.finish(
        {
            "places": figures,
            "gain_over_best_cost_blind_at_1_percent": gains,
            "with_cost_blind_gdsf_among_them": gains_over_blind_gdsf,
            "against_the_best_of_all": against_best,
            "geometric_mean_with_the_chain": geometric_mean(list(gains.values())),
        },
        bars=[
            Bar("seconds saved / best cost-blind peer at 1 %, geometric mean", geometric_mean(named), 1.15, ">="),
            Bar(
                "the same, with GDSF at equal costs among the cost-blind",
                geometric_mean([gains_over_blind_gdsf[name] for name in ("gentd26", "cdn", "drift and scans")]),
                1.15,
                ">=",
            ),
            Bar("seconds saved / best of all, the worst trace and size", min(against_best.values()), 0.98, ">="),
        ],
        notes=[
            *notes,
            "Peers named by the claim: LRU, LFU, SIEVE, S3-FIFO, W-TinyLFU, LHD (blind to cost) and GDSF. GDSF with "
            "every cost 1 is blind to cost too, but knows size; it is shown, and has its own bar.",
            "Geometric means are over gentd26, cdn and the generated trace; the chain is the first of them again.",
        ],
    )


if __name__ == "__main__":
    main()
