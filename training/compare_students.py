"""What ways of distilling the flow give: how far from the teacher's shapes they end, and what the shapes are worth.

    python -m training.compare_students SHARDS --autoencoder A --teacher T --guidance 3 spans=S.pt guidance=G.pt …

SHARDS are of shapes that no leg has seen. Rows: way, equal steps, network evaluations, distance of the latents from the
end of the teacher's path relative to the latents' own size, volume IoU of the decoded field with its standard error.
A name that begins with `reflow` is asked for velocities, any other for mean velocities over its steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.autoencoder import Autoencoder
from training.dataset import NEAR
from training.flow import Flow
from training.precision import mixed
from training.state import load
from training.student import GRID, Student, paths

STEPS = (1, 2, 4, 8, 16)
EXACT = 64
"""Steps of the path whose end is what all are compared with."""


Way = tuple[str, int, int]
"""Its name, equal steps, network evaluations."""


def walked(student: Student, steps: int, spans: bool, noise: Tensor, tokens: Tensor) -> Tensor:
    """Latents (B, L, D) after equal steps of the student from noise (B, L, D)."""
    x = noise
    for k in range(steps):
        t, d = torch.full((len(x),), k / steps), torch.full((len(x),), 1 / steps if spans else 0.0)
        with torch.no_grad(), mixed():
            x = x + student(x, t, d, tokens).float() / steps
    return x


def _taught(teacher: Flow, guidance: float, steps: int, noise: Tensor, tokens: Tensor) -> Tensor:
    return paths(teacher, noise, tokens, guidance, steps)[:, -1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("students", nargs="+", metavar="NAME=WEIGHTS")
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--guidance", type=float, required=True)
    parser.add_argument("--records", type=int, default=256)
    args = parser.parse_args()
    autoencoder, teacher = Autoencoder().eval().requires_grad_(False), Flow().eval().requires_grad_(False)
    load(autoencoder, args.autoencoder)
    load(teacher, args.teacher)
    ways: dict[Way, Callable[[Tensor, Tensor], Tensor]] = {}
    for steps in (4, 8, 12, GRID):
        ways["teacher, Adams", steps, 2 * steps] = partial(_taught, teacher, args.guidance, steps)
    for named in args.students:
        name, _, path = named.partition("=")
        student = Student().eval().requires_grad_(False)
        load(student, Path(path))
        for steps in STEPS:
            ways[name, steps, steps] = partial(walked, student, steps, not name.startswith("reflow"))
    off: dict[Way, list[Tensor]] = {way: [] for way in [("teacher, exact", EXACT, 2 * EXACT), *ways]}
    worth: dict[Way, list[Tensor]] = {way: [] for way in off}
    generator = torch.Generator().manual_seed(1)
    for records in _records(args.shards, args.records):
        image = torch.from_numpy(records["image"].astype(np.float32) / 255)
        with torch.no_grad(), mixed():
            tokens = teacher.picture(image).float()
        noise = torch.randn(len(image), len(teacher.anchors), teacher.sizes.latent_dim, generator=generator)
        exact = _taught(teacher, args.guidance, EXACT, noise, tokens)
        for way in off:
            end = ways[way](noise, tokens) if way in ways else exact
            off[way].append((end - exact).square().mean((1, 2)).sqrt() / exact.square().mean((1, 2)).sqrt())
            worth[way].append(_iou(autoencoder, end, records))
    print("| way | steps | evaluations | latents off | volume IoU |\n|---|---|---|---|---|")
    for way in off:
        iou = torch.cat(worth[way])
        name, steps, asked = way
        told = f"{iou.mean():.3f} ± {iou.std() / len(iou) ** 0.5:.3f}"
        print(f"| {name} | {steps} | {asked} | {torch.cat(off[way]).mean():.3f} | {told} |", flush=True)


def _records(folder: Path, count: int, size: int = 64) -> list[dict[str, np.ndarray]]:
    """The first `count` records under a folder, in batches."""
    batches: list[dict[str, np.ndarray]] = []
    for path in sorted(folder.glob("shard-*.npz")):
        with np.load(path) as shard:
            kept = {k: shard[k] for k in ("image", "query", "distance")}
        for start in range(0, len(kept["image"]), size):
            if len(batches) * size >= count:
                return batches
            batches.append({k: v[start : start + size] for k, v in kept.items()})
    return batches


def _iou(autoencoder: Autoencoder, latents: Tensor, records: dict[str, np.ndarray]) -> Tensor:
    """Volume IoU (B,) of what the latents are the field of, over a record's samples from the whole box."""
    query = torch.from_numpy(records["query"][:, NEAR:].astype(np.float32))
    inside = torch.from_numpy(records["distance"][:, NEAR:].astype(np.float32)) < 0
    with torch.no_grad(), mixed():
        features = autoencoder.features(latents * autoencoder.latent_std + autoencoder.latent_mean)
        own = autoencoder.query(features, query).float() > 0
    return (own & inside).sum(1) / (own | inside).sum(1).clamp(min=1)


if __name__ == "__main__":
    main()
