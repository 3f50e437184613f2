"""What the chain of keys saves: one picture asked for in 24 ways, and a small store that keeps what is dear per byte.

    MESHKILN_DATA=… python benchmarks/stage_cache.py [--short]

requests : one picture in three formats, at two resolutions, with four seeds, in process, by the default recipe: how
    often the runner was given each stage, and seconds against the same 24 requests each from nothing, in turn. Their
    files are compared byte by byte: what is served from stages must be what is made from nothing
replay : gentd26 through a store of 20 MB, with stage keys (8 KiB of latents, and the mesh made from them) against
    whole-result keys (the mesh alone); what is real and what is drawn in the trace is said in benchmarks/traces.py
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from typing import Any

import policies as policies_benchmark
import traces
from meshkiln import engines
from meshkiln.engines.vecset import ENGINE
from meshkiln.kiln import Kiln
from meshkiln.store import memory, policies
from meshkiln.store.memory import Memory
from meshkiln.store.policies import GreedyDual
from meshkiln.workers.here import run_here
from meshkiln.workers.task import Ran, Task
from quality import picture_files
from results_file import Bar, Results, code_of, data_folder

FORMATS = ("glb", "stl", "ply")
RESOLUTIONS = (128, 256)
SEEDS = (0, 1, 2, 3)
STORE = 20 * 10**6


class Counted:
    """Runs stages in this process, and counts them by name."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()

    def __call__(self, task: Task) -> Ran:
        self.ran[task.stage.name] += 1
        return run_here(task)


def requests(resolutions: tuple[int, ...]) -> dict[str, Any]:
    """The 24 requests through one kiln, each followed by the same from nothing; libraries and graphs loaded before."""
    picture = (data_folder() / "images" / picture_files()[0]).read_bytes()
    Kiln(ENGINE, Memory()).generate(picture, seed=99, octree_resolution=32)
    counted, counted_alone = Counted(), Counted()
    chained = Kiln(ENGINE, Memory(max_bytes=2**30), runner=counted)
    seconds = alone = 0.0
    equal = 0
    # Every format of a shape before the next one, as somebody asks who looks for the shape to print.
    for seed, resolution, format_ in itertools.product(SEEDS, resolutions, FORMATS):
        asked: dict[str, Any] = {"seed": seed, "octree_resolution": resolution}
        started = time.perf_counter()
        result = chained.generate(picture, format_, **asked)
        seconds += time.perf_counter() - started
        started = time.perf_counter()
        same = Kiln(ENGINE, Memory(), runner=counted_alone).generate(picture, format_, **asked)
        alone += time.perf_counter() - started
        if same.key != result.key:
            raise SystemExit("the same request has two keys")
        equal += same.data == result.data
        print(f"seed {seed}, {resolution} cells, {format_}: {seconds:.2f} s, {alone:.2f} s from nothing", flush=True)
    return {
        "ran": {stage.name: counted.ran[stage.name] for stage in ENGINE.stages},
        "ran_from_nothing": {stage.name: counted_alone.ran[stage.name] for stage in ENGINE.stages},
        "requests": len(SEEDS) * len(resolutions) * len(FORMATS),
        "equal_files": equal,
        "seconds": seconds,
        "from_nothing_s": alone,
    }


def replay() -> dict[str, float]:
    """Shares of the trace's seconds that each kind of key saves."""
    chain = traces.gentd26_chain(data_folder())
    whole = traces.Trace(
        chain.name,
        [(traces.Step(made[-1].key, made[-1].size, sum(step.cost for step in made)),) for made in chain.requests],
        chain.notes,
    )
    saved = {
        name: policies_benchmark.replay(trace, GreedyDual(), STORE)["saved"]
        for name, trace in (("stage_keys", chain), ("whole_result_keys", whole))
    }
    most = policies_benchmark.replay(chain, GreedyDual(), 10**12)["saved"]
    return {
        **{f"{name}_saved_share": share for name, share in saved.items()},
        **{f"{name}_saved_s": share * chain.seconds for name, share in saved.items()},
        "unbounded_saved_share": most,
        "trace_s": chain.seconds,
        "requests": len(chain.requests),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a look, not a result: small grids")
    given = parser.parse_args()
    modules = (memory, policies, policies_benchmark, traces)
    sources = [*code_of(engines), *(module.__file__ for module in modules)]
    results = Results("stage_cache", ["numpy", "onnxruntime"], sources, trial=given.short)
    asked = results.item("requests", lambda: requests((32, 64) if given.short else RESOLUTIONS))
    store = results.item("replay", replay)
    ran = asked["ran"]
    bars = [
        Bar("24 requests of one picture: sampling ran", ran["sample"], len(SEEDS), "<="),
        Bar("24 requests of one picture: decoding ran", ran["decode"], len(SEEDS) * len(RESOLUTIONS), "<="),
        Bar("24 requests of one picture: files equal to those from nothing", asked["equal_files"], 24, ">="),
        Bar(
            "24 requests of one picture, against each from nothing: faster",
            asked["from_nothing_s"] / asked["seconds"],
            1,
            ">=",
            "×",
        ),
        Bar(
            "gentd26 through 20 MB: seconds saved with stage keys against whole-result keys",
            store["stage_keys_saved_s"] / store["whole_result_keys_saved_s"],
            1,
            ">=",
            "×",
        ),
    ]
    return 0 if results.finish({"requests": asked, "replay": store}, bars, NOTES) else 1


NOTES = [
    "gentd26: identities are user and configuration, so repeats are an upper bound; sizes of meshes and the time of "
    "decoding are drawn, latents are 8 KiB",
]

if __name__ == "__main__":
    sys.exit(main())
