"""What clustering before edge collapse saves and costs: the stage `finish` with it and without, on the same meshes.

    MESHKILN_DATA=… python benchmarks/finish.py [--pictures 12]

Meshes are the recipe fast's of pictures of the data folder. Seconds are of the processor, the better of two runs of
each, in turns. Deviations are in voxels of the 256³ grid that was decoded: from 100,000 points of the one surface to
the tangent plane at the nearest point of the other, either way; and the mean cosine between normals there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from meshkiln import engines
from meshkiln.engines.mesh import FACES, finish, solid
from meshkiln.engines.vecset import ENGINE
from meshkiln.quality import metrics
from quality import cut, picture_files, run
from results_file import Bar, Results, code_of

VOXEL = 2 / 256
POINTS = 100_000


@contextmanager
def collapse_alone() -> Iterator[None]:
    """Nothing is clustered meanwhile."""
    many, finish.MANY = finish.MANY, float("inf")
    try:
        yield
    finally:
        finish.MANY = many


def solidified(mesh: dict[str, Any]) -> tuple[float, trimesh.Trimesh]:
    """Seconds and result of `solidify` with the parameter's default."""
    started = time.process_time()
    vertices, faces = finish.solidify(mesh["vertices"], mesh["faces"], int(FACES.default))
    seconds = time.process_time() - started
    if fault := solid.fault(vertices, faces):
        raise AssertionError(f"a finished mesh is no solid: {fault}")
    return seconds, trimesh.Trimesh(vertices, faces, process=False)


def deviation(one: trimesh.Trimesh, other: trimesh.Trimesh) -> tuple[float, float]:
    """Mean distance in voxels of points on `one` from the tangent planes of `other`, and the mean cosine there."""
    points, normals = metrics.surface_samples(one, POINTS, 0)
    theirs, their_normals = metrics.surface_samples(other, 4 * POINTS, 1)
    nearest = cKDTree(theirs).query(points)[1]
    off = np.abs(((points - theirs[nearest]) * their_normals[nearest]).sum(axis=1))
    return float(off.mean()) / VOXEL, float((normals * their_normals[nearest]).sum(axis=1).mean())


def measure(file: str) -> dict[str, float]:
    """Both ways for one picture."""
    mesh = run(ENGINE.stages[2:5], {"pixels": cut(file)}, ENGINE.canonical({}))
    whole = trimesh.Trimesh(mesh["vertices"], mesh["faces"], process=False)
    seconds: dict[str, list[float]] = {"collapsed": [], "clustered": []}
    made = {}
    for _ in range(2):
        with collapse_alone():
            its, made["collapsed"] = solidified(mesh)
        seconds["collapsed"].append(its)
        its, made["clustered"] = solidified(mesh)
        seconds["clustered"].append(its)
    row = {"triangles": float(len(mesh["faces"]))}
    for name, simple in made.items():
        there, back = deviation(simple, whole), deviation(whole, simple)
        row |= {f"{name}_s": min(seconds[name]), f"{name}_voxels": (there[0] + back[0]) / 2}
        row[f"{name}_cosine"] = (there[1] + back[1]) / 2
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=12, help="fewer writes no result")
    given = parser.parse_args()
    trial = given.pictures < parser.get_default("pictures")
    results = Results("finish", ["fast-simplification", "numpy"], code_of(engines), trial=trial)
    rows = [results.item(file, lambda f=file: measure(f)) for file in picture_files()[: given.pictures]]
    figures = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}
    figures["times_faster_median"] = round(median(row["collapsed_s"] / row["clustered_s"] for row in rows), 2)
    print(figures)
    bars = [
        Bar(
            "finish after clustering: deviation from the mesh that was decoded",
            figures["clustered_voxels"],
            0.1,
            unit=" voxels",
        ),
        Bar(
            "finish: processor seconds, the better of two runs, mean over pictures",
            figures["clustered_s"],
            0.12,
            unit=" s",
        ),
    ]
    return 0 if results.finish(figures, bars, [f"{len(rows)} pictures, to {FACES.default} triangles"]) else 1


if __name__ == "__main__":
    sys.exit(main())
