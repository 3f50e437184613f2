"""72 requests over 30 pictures (30, then 21 of them again, then once more), through the HTTP gateway.

    MESHKILN_DATA=… python benchmarks/seventy_two.py [--timed 10] [--short]

reference : the recipe `reference`, one request after another, no store, no single flights, one worker with all
    processors' threads. The first `--timed` are measured and the sum is scaled to 72: counted as scaled. An
    interrupted run goes on after the last of them
cold : the defaults, all 72 asked by 32 clients at once, nothing stored
warm : the same 72 again

Pictures: those of the data folder, and frozen procedural shapes up to 30. Clients are part of the time; starting the
server and loading the graphs are not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from meshkiln import engines
from meshkiln.engines.vecset import ENGINE
from quality import picture_files
from results_file import Bar, Results, code_of, data_folder
from servers import Peer, counts, meshkiln, post

DISTINCT, AGAIN, CLIENTS = 30, 21, 32
PATIENCE = 3600
"""Seconds a client waits for its answer on its connection: none asks again while the machine computes."""
WAIT = f"engine=vecset&wait={PATIENCE}"
OURS = {"MESHKILN_ENGINE": "vecset", "MESHKILN_WAIT_SECONDS": str(PATIENCE)}


@cache
def pictures() -> list[bytes]:
    """30 distinct pictures, as files."""
    from training import testset

    found = [(data_folder() / "images" / file).read_bytes() for file in picture_files()][:DISTINCT]
    for index in range(DISTINCT - len(found)):
        png = io.BytesIO()
        Image.fromarray(testset.item(index).rgba).save(png, "PNG")
        found.append(png.getvalue())
    return found


def asked() -> list[bytes]:
    """The 72, in order."""
    distinct = pictures()
    return distinct + distinct[:AGAIN] + distinct[:AGAIN]


def loaded(server: Peer, query: str) -> None:
    """Have every worker load its graphs, by small generations of a picture that is not measured."""
    dot = io.BytesIO()
    picture = Image.new("RGBA", (64, 64))
    picture.paste((200, 90, 60, 255), (12, 12, 52, 52))
    picture.save(dot, "PNG")
    with ThreadPoolExecutor(4) as clients:
        for made in clients.map(
            lambda seed: post(server.port, dot.getvalue(), f"{query}&octree_resolution=32&seed={seed}"), range(8)
        ):
            succeeded(made)


def succeeded(document: dict[str, Any]) -> None:
    if document["state"] != "succeeded":
        raise SystemExit(f"a generation did not succeed: {document}")


def reference(results: Results, folder: Path, timed: int, query: str) -> list[float]:
    """Seconds of each of the first `timed` requests."""
    plain = {**OURS, "MESHKILN_MEMORY": "false", "MESHKILN_DISK": "false", "MESHKILN_SINGLE_FLIGHT": "false"}
    plain |= {"MESHKILN_WORKERS": "1", "MESHKILN_STAGE_SECONDS": "3000"}
    with contextlib.ExitStack() as stack:
        servers: list[Peer] = []

        def one(data: bytes) -> float:
            if not servers:
                servers.append(stack.enter_context(meshkiln(folder / "reference", **plain)))
                loaded(servers[0], f"{WAIT}&recipe=reference&steps=1&decoder=sparse")
            started = time.perf_counter()
            succeeded(post(servers[0].port, data, query, PATIENCE))
            seconds = time.perf_counter() - started
            print(f"reference: {seconds:.2f} s", flush=True)
            return seconds

        return [results.item(f"reference {n}", lambda d=data: one(d)) for n, data in enumerate(asked()[:timed])]


def ours(folder: Path, query: str) -> dict[str, Any]:
    """Cold, then warm, in one server."""
    told: dict[str, Any] = {}
    with meshkiln(folder / "ours", **OURS) as server, ThreadPoolExecutor(CLIENTS) as clients:
        loaded(server, WAIT)
        for name in ("cold", "warm"):
            before, started = counts(server.port), time.perf_counter()
            for made in clients.map(lambda data: post(server.port, data, query, PATIENCE), asked()):
                succeeded(made)
            told[f"{name}_s"] = time.perf_counter() - started
            after = counts(server.port)
            told[name] = {what: after[what] - before[what] for what in after}
            print(name, f"{told[f'{name}_s']:.2f} s", told[name], flush=True)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--timed", type=int, default=10, help="reference requests that are run; fewer than 10: no result"
    )
    parser.add_argument("--resolution", type=int, default=256, help="cells; another than 256 writes no result")
    parser.add_argument("--short", action="store_true", help="a look, not a result: 2 timed, 32 cells")
    given = parser.parse_args()
    if given.short:
        given.timed, given.resolution = 2, 32
    trial = given.timed < 10 or given.resolution != 256
    results = Results("seventy_two", ["numpy", "onnxruntime"], code_of(engines), trial=trial)
    grid = f"octree_resolution={given.resolution}"
    with tempfile.TemporaryDirectory() as folder:
        slow = reference(results, Path(folder), given.timed, f"{WAIT}&recipe=reference&{grid}")
        quick = results.item("ours", lambda: ours(Path(folder), f"{WAIT}&{grid}"))
    total = len(asked())
    scaled = sum(slow) * total / len(slow)
    figures = {
        "reference_timed": len(slow),
        "reference_timed_s": sum(slow),
        "reference_scaled_to_72_s": scaled,
        "cold_s": quick["cold_s"],
        "warm_s": quick["warm_s"],
        "reference_to_cold": scaled / quick["cold_s"],
        "reference_to_warm": scaled / quick["warm_s"],
        "cold": quick["cold"],
        "warm": quick["warm"],
        "pictures_of_the_data_folder": min(len(picture_files()), DISTINCT),
        "recipes": {name: ENGINE.recipes[name] for name in ("reference", "fast")},
    }
    print({name: value for name, value in figures.items() if name != "recipes"})
    bars = [
        Bar("72 requests, cold: generations", quick["cold"]["computed"], DISTINCT, "<="),
        Bar("72 requests, warm: generations", quick["warm"]["computed"], 0, "<="),
        Bar("72 requests, the reference recipe one by one against ours cold", scaled / quick["cold_s"], 1, ">=", "×"),
        Bar("72 requests, the reference recipe one by one against ours warm", scaled / quick["warm_s"], 1, ">=", "×"),
    ]
    notes = [f"the reference's first {len(slow)} requests were run and scaled to {total}; cold and warm were run whole"]
    return 0 if results.finish(figures, bars, notes) else 1


if __name__ == "__main__":
    sys.exit(main())
