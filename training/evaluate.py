"""How good exported weights are, quickly: on the frozen procedural shapes and on the ten development meshes.

    MESHKILN_DATA=... python -m training.evaluate WEIGHTS [--count 200] [--steps 20] [--guidance 2] [--sheet out.png]

Needs no torch. Figures for publication come from `benchmarks`; these choose between runs. Occupancy is compared on a
48³ grid, silhouettes along z on the same grid, F-score at 0.05 of the reference's larger half-extent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from meshkiln.engines.vecset.crop import recentre

F32 = NDArray[np.float32]
GRID = 48
AXIS = (np.arange(GRID, dtype=np.float32) + 0.5) * (2 / GRID) - 1
POINTS: F32 = np.stack(np.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), -1).reshape(-1, 3)


class Weights:
    """The exported graphs, run by ONNX Runtime."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.run = {
            p.stem: onnxruntime.InferenceSession(str(p), options, providers=["CPUExecutionProvider"])
            for p in folder.glob("*.onnx")
        }
        self.null = np.load(folder / "null.npy")
        self.manifest = json.loads((folder / "manifest.json").read_text())

    def call(self, graph: str, **inputs: F32) -> F32:
        """The output of one graph, its inputs by name."""
        return np.asarray(self.run[graph].run(None, inputs)[0])

    def autoencode(self, points: F32, normals: F32) -> F32:
        return self.call("shape_encoder", surface=np.concatenate([points, normals], 1)[None].astype(np.float32))

    def sample(self, rgba: NDArray[np.uint8], steps: int, guidance: float, seed: int = 0) -> F32:
        """Latents (1, L, D) of the picture's shape: Euler steps, classifier-free guidance."""
        tokens = self.call("encoder", image=recentre(rgba)[None])
        both = np.concatenate([tokens, self.null[None]]) if guidance != 1 else tokens
        shape = (1, self.manifest["latents"], self.manifest["latent_dim"])
        x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        for i in range(steps):
            n = len(both)
            v = self.call("flow", x=x.repeat(n, 0), t=np.full(n, i / steps, np.float32), tokens=both)
            x = x + (v[1:] + guidance * (v[:1] - v[1:]) if n == 2 else v) / np.float32(steps)
        return x

    def distilled(self, rgba: NDArray[np.uint8], steps: int, seed: int = 0) -> F32:
        """Latents (1, L, D) by the student: `steps` spans of equal length on its grid."""
        tokens = self.call("encoder", image=recentre(rgba)[None])
        shape = (1, self.manifest["latents"], self.manifest["latent_dim"])
        x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        grid = self.manifest["student"]["grid"]
        times = np.round(np.linspace(0, grid, steps + 1)).astype(np.float32) / grid
        for t, d in zip(times[:-1], np.diff(times), strict=True):
            x = x + d * self.call("student", x=x, t=t[None], d=d[None], tokens=tokens)
        return x

    def field(self, z: F32) -> F32:
        """Logits on the grid: (48, 48, 48), indexed x, y, z."""
        features = self.call("latents", z=z)
        parts = [self.call("query", features=features, points=p[None]) for p in np.array_split(POINTS, 14)]
        return np.concatenate(parts, 1).reshape(GRID, GRID, GRID)


@dataclass(frozen=True)
class Reference:
    """What a result is compared with; surface and normals (N, 3), inside (48, 48, 48) bool."""

    name: str
    rgba: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    surface: F32
    normals: F32


def procedural(count: int) -> Iterator[Reference]:
    from training.testset import items

    for item in items(count):
        inside = (item.distance(POINTS) < 0).reshape(GRID, GRID, GRID)
        yield Reference(("* " if item.held_out else "") + item.kind, item.rgba, inside, item.surface, item.normals)


def real() -> Iterator[Reference]:
    import trimesh

    from training.real import views

    for view in views():
        inside = view.mesh.contains(POINTS).reshape(GRID, GRID, GRID)
        points, faces = trimesh.sample.sample_surface(view.mesh, 8192, seed=0)
        normals = view.mesh.face_normals[faces]
        yield Reference(view.name, view.rgba, inside, points.astype(np.float32), normals.astype(np.float32))


def compare(logits: F32, reference: Reference) -> dict[str, float]:
    inside, truth = logits > 0, reference.inside
    flat, flat_truth = inside.any(2), truth.any(2)
    out = {
        "iou": float((inside & truth).sum() / max((inside | truth).sum(), 1)),
        "silhouette": float((flat & flat_truth).sum() / max((flat | flat_truth).sum(), 1)),
        "f05": 0.0,
    }
    if inside.any() and not inside.all():
        v, faces, _, _ = marching_cubes(np.pad(logits, 1, constant_values=-9.0), 0.0)
        tri = ((v - 1 + 0.5) * (2 / GRID) - 1)[faces]
        area = np.linalg.norm(np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0]), axis=1) + 1e-12
        rng = np.random.default_rng(0)
        pick = rng.choice(len(tri), 8192, p=area / area.sum())
        a, b = np.sqrt(rng.random((8192, 1))), rng.random((8192, 1))
        got = tri[pick, 0] * (1 - a) + tri[pick, 1] * a * (1 - b) + tri[pick, 2] * a * b
        radius = 0.05 * float(np.abs(reference.surface).max())
        precision = float((cKDTree(reference.surface).query(got)[0] < radius).mean())
        recall = float((cKDTree(got).query(reference.surface)[0] < radius).mean())
        out["f05"] = 2 * precision * recall / max(precision + recall, 1e-9)
    return out


def shaded(logits: F32, axis: int, sign: int) -> NDArray[np.uint8]:
    """A lit depth view of the grid along an axis (0: from ±x, 2: from ±z): (96, 96) uint8."""
    field = logits if axis == 2 else np.moveaxis(logits, 0, 2)[::1].transpose(1, 0, 2)  # (across, y, depth)
    if sign > 0:
        field = field[:, :, ::-1]
    inside = field > 0
    first = inside.argmax(2)
    hit = inside.any(2)
    i, j = np.indices(first.shape)
    now, before = field[i, j, first], field[i, j, np.maximum(first - 1, 0)]
    depth = first - np.clip(now / np.maximum(now - before, 1e-6), 0, 1)
    dx, dy = np.gradient(depth)
    light = 1 / np.sqrt(1 + dx**2 + dy**2)
    tone = np.where(hit, 60 + 180 * np.clip(0.75 * light + 0.25 * light * -np.clip(dy, -1, 1) * -1, 0, 1), 255)
    image = tone.T[::-1]
    if (axis == 2) != (sign > 0):
        image = image[:, ::-1]
    return np.asarray(image, np.uint8).repeat(2, 0).repeat(2, 1)


def row(reference: Reference, ceiling: F32, result: F32) -> NDArray[np.uint8]:
    """Input | result front, side, back | reference front, side | autoencoder front: one strip of a contact sheet."""
    from PIL import Image

    seen = Image.fromarray((np.moveaxis(recentre(reference.rgba), 0, 2)[..., :3] * 255).astype(np.uint8)).resize(
        (96, 96)
    )
    truth = np.where(reference.inside, 1.0, -1.0).astype(np.float32)
    views = [shaded(result, 2, 1), shaded(result, 0, 1), shaded(result, 2, -1)]
    views += [shaded(truth, 2, 1), shaded(truth, 0, 1), shaded(ceiling, 2, 1), shaded(ceiling, 0, 1)]
    return np.concatenate([np.asarray(seen), *(np.repeat(v[..., None], 3, 2) for v in views)], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--student", action="store_true", help="the distilled flow instead of the guided one")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--part", choices=("both", "ceiling", "flow"), default="both", help="the ceiling is slow")
    parser.add_argument("--only", choices=("procedural", "real"))
    args = parser.parse_args()
    weights = Weights(args.weights)
    sources: dict[str, Callable[[], Iterator[Reference]]] = {"procedural": lambda: procedural(args.count), "real": real}
    strips = []
    for source, references in sources.items():
        if args.only not in (None, source):
            continue
        rows: list[dict[str, float]] = []
        for reference in references():
            ceiling = result = np.full((GRID, GRID, GRID), -1.0, np.float32)
            figures: dict[str, float] = {}
            if args.part != "flow":
                ceiling = weights.field(weights.autoencode(reference.surface[:2048], reference.normals[:2048]))
                figures |= {f"ae_{k}": v for k, v in compare(ceiling, reference).items()}
            if args.part != "ceiling":
                if args.student:
                    latents = weights.distilled(reference.rgba, args.steps)
                else:
                    latents = weights.sample(reference.rgba, args.steps, args.guidance)
                result = weights.field(latents)
                figures |= compare(result, reference)
            rows.append(figures)
            print(f"{reference.name:18s}", " ".join(f"{k} {v:.3f}" for k, v in rows[-1].items()), flush=True)
            strips.append(row(reference, ceiling, result))
        if rows:
            means = {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}
            print(f"== {source}, {len(rows)}:", " ".join(f"{k} {v:.3f}" for k, v in means.items()), flush=True)
    if args.sheet:
        from PIL import Image

        while len(strips) % 2:
            strips.append(np.full_like(strips[0], 255))
        half = len(strips) // 2
        Image.fromarray(np.concatenate([np.concatenate(strips[:half]), np.concatenate(strips[half:])], 1)).save(
            args.sheet
        )


if __name__ == "__main__":
    main()
