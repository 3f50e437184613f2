"""The decoders: field queries, seconds, memory; whether sparse and dense give one surface, and how far off patches are.

    MESHKILN_DATA=… python benchmarks/decode.py [--shapes 20]

Fields are the bundled model's, for pictures of the data folder (encode, 8 steps, guidance as by default). Seconds are
of the whole stage from features to mesh, on the runtime's own threads, one after the other in one process. Dense
decodes above 256³ are not run to the end: 60 chunks of 8,000 queries spread over the grid are timed and scaled.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from functools import cache
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from meshkiln import engines
from meshkiln.engines.vecset import (
    ENGINE,
    cubes,
    decode,
    dense,
    grid,
    patches,
    runtime,
    sparse,
)
from quality import cut, picture_files, run
from results_file import Bar, Results, code_of

RESOLUTIONS = (64, 128, 256, 384, 512)
WHOLE = 256
"""The largest grid that is decoded densely to the end."""


@cache
def features(number: int) -> NDArray[np.float32]:
    """What the query graph wants, (L, W), of the picture with that number."""
    files = picture_files()
    parameters = ENGINE.canonical({"steps": 8, "seed": number // len(files)})
    latents = run(ENGINE.stages[2:4], {"pixels": cut(files[number % len(files)])}, parameters)["latents"]
    found: NDArray[np.float32] = runtime.run("latents.onnx", z=latents[None])[0]
    return found


@cache
def field(number: int) -> grid.Field:
    """The field of that picture's shape."""
    return decode.field(features(number))


def speed(resolution: int, number: int) -> dict[str, Any]:
    """Queries and seconds of both decoders for one shape."""
    its = field(number)
    its(np.zeros((8000, 3), np.float32))
    patches.decode_one(features(number), resolution)
    started = time.perf_counter()
    patched, nodes = patches.decode_one(features(number), resolution)
    patches_seconds = time.perf_counter() - started
    started = time.perf_counter()
    mesh, cost = sparse.decode_one(its, resolution)
    sparse_seconds = time.perf_counter() - started
    samples = (resolution + 1) ** 3
    started = time.perf_counter()
    if resolution <= WHOLE:
        whole = dense.decode(its, resolution)
        dense_seconds = time.perf_counter() - started
        shares = {**agreement(whole, mesh, resolution), **deviation(whole, patched, resolution)}
    else:
        shares = {}
        coordinate = grid.axis(resolution)
        chunks = 60
        for start in np.linspace(0, samples - dense.CHUNK, chunks).astype(np.int64):
            index = np.stack(np.unravel_index(np.arange(start, start + dense.CHUNK), (resolution + 1,) * 3), axis=1)
            its(coordinate[index])
        dense_seconds = (time.perf_counter() - started) * samples / (chunks * dense.CHUNK)
    return {
        "dense_queries": samples,
        "dense_s": dense_seconds,
        "sparse_queries": cost.queries,
        "sparse_calls": cost.calls,
        "sparse_s": sparse_seconds,
        "sparse_query_s": field_seconds(its, cost.queries),
        "patches_queries": nodes.queries,
        "patches_s": patches_seconds,
        "faces": len(mesh.faces),
        **shares,
    }


def field_seconds(its: grid.Field, queries: int) -> float:
    """Seconds that so many queries take when asked at once."""
    points = np.random.default_rng(0).uniform(-1, 1, (queries, 3)).astype(np.float32)
    started = time.perf_counter()
    its(points)
    return time.perf_counter() - started


def agreement(whole: grid.Mesh, found: grid.Mesh, resolution: int) -> dict[str, Any]:
    """Shares of vertices within 0.1 voxel of the other decoder's, both ways."""
    if len(whole.vertices) == 0 or len(found.vertices) == 0:
        same = float(len(whole.vertices) == len(found.vertices))
        return {"dense_found": same, "sparse_true": same, "vertices": 0}
    near = 0.1 * 2 / resolution
    return {
        "dense_found": float((cKDTree(found.vertices).query(whole.vertices)[0] <= near).mean()),
        "sparse_true": float((cKDTree(whole.vertices).query(found.vertices)[0] <= near).mean()),
        "vertices": len(whole.vertices),
    }


def deviation(whole: grid.Mesh, found: grid.Mesh, resolution: int) -> dict[str, float]:
    """Quantiles of how far the patch decoder's vertices and the dense decoder's are from the others' nearest, in cells
    of the grid."""
    far = np.concatenate([cKDTree(a.vertices).query(b.vertices)[0] for a, b in ((whole, found), (found, whole))])
    return {f"patches_off_q{q}": float(np.quantile(far, q / 100)) * resolution / 2 for q in (50, 95, 99)}


def equality(number: int, resolution: int) -> dict[str, Any]:
    """Whether the decoders agree on one shape."""
    whole = dense.decode(field(number), resolution, chunk=16_384)
    return agreement(whole, sparse.decode_one(field(number), resolution)[0], resolution)


def ablation(number: int) -> dict[str, dict[str, float]]:
    """Queries at 256³, and the share found of the vertices that asking for most finds, for each part left out."""
    variants = {
        "every corner within a cell of the surface": (1.0, sparse.DOUBT, sparse.MARGIN),
        "as it is": (sparse.UNSURE, sparse.DOUBT, sparse.MARGIN),
        "no doubt": (sparse.UNSURE, 0.0, sparse.MARGIN),
        "ends of crossing sides alone": (0.0, 0.0, sparse.MARGIN),
        "no margin": (sparse.UNSURE, sparse.DOUBT, 0.0),
    }
    usual, most, rows = (sparse.UNSURE, sparse.DOUBT), None, {}
    try:
        for name, (unsure, doubt, margin) in variants.items():
            sparse.UNSURE, sparse.DOUBT = unsure, doubt
            mesh, cost = sparse.decode_one(field(number), WHOLE, margin=margin)
            most = mesh if most is None else most
            rows[name] = {"queries": cost.queries, "found": agreement(most, mesh, WHOLE)["dense_found"]}
    finally:
        sparse.UNSURE, sparse.DOUBT = usual
    return rows


def missed(margin: float, coarse: int, trials: int = 150) -> dict[str, float]:
    """Share of loose thin pieces not found, by kind, and queries against a margin of 0, at 96³.

    A piece is 0.3 to 0.8 coarse cells thick, turned and placed at random; the fields are −60 × distance.
    """
    resolution, cell = 96, 2 / coarse
    rng = np.random.default_rng(0)
    lost: dict[str, list[bool]] = {"plate": [], "rod": [], "ball": []}
    queries, plain = 0, 0
    for trial in range(trials):
        kind = ("plate", "rod", "ball")[trial % 3]
        thin = rng.uniform(0.15, 0.4) * cell
        half = {"plate": (0.25, 0.25, thin), "rod": (0.25, thin, thin), "ball": (thin, thin, thin)}[kind]
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        centre = rng.uniform(-0.6, 0.6, 3)

        def piece(p: NDArray[np.float32], half: Any = half, turn: Any = turn, centre: Any = centre) -> Any:
            d = np.abs((p - centre) @ turn) - half
            return 60 * -(np.linalg.norm(np.maximum(d, 0), axis=1) + np.minimum(d.max(axis=1), 0))

        def both(p: NDArray[np.float32], piece: Any = piece) -> Any:
            ball = 60 * (0.3 - np.linalg.norm(p - np.float32(0.65), axis=1))
            return np.maximum(ball, piece(p)).astype(np.float32)

        mesh, cost = sparse.decode_one(both, resolution, coarse=coarse, margin=margin)
        queries += cost.queries
        plain += sparse.decode_one(both, resolution, coarse=coarse, margin=0.0)[1].queries
        lost[kind].append(int((np.abs(piece(mesh.vertices)) < 0.5).sum()) < 12)
    return {**{k: float(np.mean(v)) for k, v in lost.items()}, "queries_ratio": queries / plain}


def peak(decoder: str, resolution: int) -> float:
    """Peak MiB of the decoder's own arrays while it decodes a ball that fills a third of the box."""

    def ball(p: NDArray[np.float32]) -> NDArray[np.float32]:
        return (60 * (0.85 - np.linalg.norm(p, axis=1))).astype(np.float32)

    cubes.tables()
    tracemalloc.start()
    if decoder == "sparse":
        sparse.decode_one(ball, resolution)
    else:
        dense.decode(ball, resolution, chunk=200_000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=20, help="whose surfaces are compared; fewer writes no result")
    parser.add_argument(
        "--timed", type=int, default=3, help="at each resolution (a dense grid: a minute); fewer writes no result"
    )
    given = parser.parse_args()
    trial = given.shapes < parser.get_default("shapes") or given.timed < parser.get_default("timed")
    results = Results("decode", ["onnxruntime", "scikit-image"], code_of(engines), trial=trial)

    table: dict[str, dict[str, Any]] = {}
    whole: list[dict[str, Any]] = []
    for resolution in RESOLUTIONS:
        rows = [
            results.item(f"speed {resolution} {n}", lambda r=resolution, n=n: speed(r, n)) for n in range(given.timed)
        ]
        whole += rows if resolution == WHOLE else []
        its = {name: median(row[name] for row in rows) for name in rows[0]}
        its["fewer_queries"] = median(row["dense_queries"] / row["sparse_queries"] for row in rows)
        its["faster"] = median(row["dense_s"] / row["sparse_s"] for row in rows)
        its["patches_faster"] = median(row["dense_s"] / row["patches_s"] for row in rows)
        table[str(resolution)] = {name: round(value, 4) for name, value in its.items()}
        print(resolution, table[str(resolution)], flush=True)
    same = [results.item(f"equal {n}", lambda n=n: equality(n, 128)) for n in range(given.shapes)]
    same += [results.item(f"equal 64 {n}", lambda n=n: equality(n, 64)) for n in range(5 * given.shapes)]
    same += whole
    parts = results.item("ablation", lambda: ablation(1))
    margins = {
        f"{margin:g}": results.item(f"missed {margin:g}", lambda m=margin: missed(m, 16))
        for margin in (0.0, 0.3, 0.5, sparse.MARGIN)
    }
    memory = {
        f"{kind}_{r}_mib": round(results.item(f"memory {kind} {r}", lambda k=kind, r=r: peak(k, r)), 1)
        for kind, r in (("sparse", 256), ("sparse", 512), ("dense", 256), ("dense", 512))
    }
    print(margins, memory, parts, flush=True)
    worst = min(min(row["dense_found"], row["sparse_true"]) for row in same)
    results.finish(
        {
            "by_resolution": table,
            "equal_share_worst": worst,
            "equal_share_median": median(min(row["dense_found"], row["sparse_true"]) for row in same),
            "equal_shapes": len(same),
            "missed_by_margin": margins,
            "ablation_256": parts,
            "peak_memory": memory,
        },
        bars=[
            Bar("sparse against dense at 256³: fewer queries", table["256"]["fewer_queries"], 15, ">=", "×"),
            Bar("sparse against dense at 256³: faster", table["256"]["faster"], 25, ">=", "×"),
            Bar("vertices within 0.1 voxel of the dense decoder's, worst of all shapes", worst, 0.999, ">="),
        ],
        notes=[
            f"dense above {WHOLE}³ is scaled from 60 chunks of {dense.CHUNK} queries, without marching cubes",
            "missed: share of loose pieces 0.3 to 0.8 coarse cells thick that were not found, by `margin`",
            "patches_off: quantiles of the distance between the patch decoder's vertices and the dense one's nearest, "
            "both ways, in cells of the grid",
            "peak memory: of the decoder's own arrays, for a ball of radius 0.85; the runtime's come on top",
        ],
    )


if __name__ == "__main__":
    main()
