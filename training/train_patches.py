"""Distils the autoencoder's query head into the patch decoder of `patches.py`.

    python -m training.launch 2 training.train_patches SHARDS OUT --autoencoder OUT/autoencoder.pt
        --student OUT/student.pt --flow OUT/flow.pt --minutes 35

Half of the latent sets are of shapes, some with noise added, half are what the student makes of pictures: those are
what requests decode. Resumable like the other legs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.autoencoder import Autoencoder
from training.flow import Flow
from training.loop import Leg, Report, join
from training.patches import CELLS, begin, loss
from training.precision import mixed
from training.state import load
from training.student import Student
from training.train_flow import Pictures

HIDDEN = ("query_mlp", "query_q", "query_out", "basis_mid")

LOOKED_AT = 1024
"""Cells of a shape whose centre is asked for, to find those near the surface."""


class Latents:
    """Latent sets as the decoder meets them, standardised undone."""

    def __init__(self, autoencoder: Autoencoder, flow: Flow, student: Student, pictures: Pictures) -> None:
        self.autoencoder, self.flow, self.student, self.pictures = autoencoder, flow, student, pictures

    @torch.no_grad()
    def batch(self, rng: np.random.Generator, generator: torch.Generator, count: int) -> Tensor:
        """(2·count, L, D)"""
        a = self.autoencoder
        surface, _, _ = self.pictures.batch(rng, count)
        with mixed():
            own = (a.encode(surface)[0] - a.latent_mean) / a.latent_std
            tokens = self.flow.picture(self.pictures.images(rng, count))
        noise = torch.randn(own.shape, generator=generator)
        own = own + noise * 0.4 * torch.rand(count, 1, 1, generator=generator) ** 2
        x = torch.randn(own.shape, generator=generator)
        steps = int(rng.choice([2, 4, 8]))
        for k in range(steps):
            t, d = torch.full((count,), k / steps), torch.full((count,), 1 / steps)
            with mixed():
                x = x + self.student(x, t, d, tokens).float() / steps
        return torch.cat([own, x]) * a.latent_std + a.latent_mean


@torch.no_grad()
def near_surface(autoencoder: Autoencoder, features: Tensor, rng: np.random.Generator, count: int) -> Tensor:
    """Cells (B, count, 3) of each shape: five of six where the surface may pass, the others anywhere."""
    look = torch.from_numpy(rng.integers(0, CELLS, (len(features), LOOKED_AT, 3)).astype(np.float32))
    value = autoencoder.query(features, (look + 0.5) * (2.0 / CELLS) - 1).abs()
    # Half a cell's diagonal is 3.2 logits: beyond that no surface passes.
    value = torch.where(value < 3.2, torch.from_numpy(rng.random(value.shape).astype(np.float32)), value + 1)
    most = count * 5 // 6
    chosen = value.argsort(dim=1)[:, :most]
    rest = torch.from_numpy(rng.integers(0, LOOKED_AT, (len(features), count - most)))
    return torch.gather(look, 1, torch.cat([chosen, rest], 1)[..., None].expand(-1, -1, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--flow", type=Path, required=True, help="whose picture encoder the student uses")
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--batch", type=int, default=4, help="latent sets of each kind per process and step")
    parser.add_argument("--cells", type=int, default=48, help="per latent set")
    parser.add_argument("--places", type=int, default=40, help="samples per cell, the same in all")
    parser.add_argument("--start", type=Path, help="weights of an earlier leg (.npz or .pt)")
    parser.add_argument("--rate", type=float, default=0.5, help="scales the learning rates")
    parser.add_argument("--fall", type=float, default=0.45, help="the last share of the leg, over which the rates fall")
    args = parser.parse_args()
    rank = join()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    autoencoder = Autoencoder().eval().requires_grad_(False)
    flow, student = Flow().eval().requires_grad_(False), Student().eval().requires_grad_(False)
    load(autoencoder, args.autoencoder)
    load(flow, args.flow)
    load(student, args.student)
    torch.manual_seed(0)
    patches = begin(autoencoder).train()
    if args.start:
        load(patches, args.start)
    rates = 0.02 * args.rate, 1.5e-3 * args.rate
    leg = Leg(patches, args.out / "patches.pt", args.minutes, HIDDEN, *rates, fall=args.fall)
    generator = torch.Generator().manual_seed(leg.steps * 2 + rank)
    rng = np.random.default_rng([leg.steps, rank])
    latents = Latents(autoencoder, flow, student, Pictures(args.shards, rank, leg.world))
    report = Report(leg, 50)
    while leg.running():
        with torch.no_grad():
            features = autoencoder.features(latents.batch(rng, generator, args.batch))
            cells = near_surface(autoencoder, features, rng, args.cells)
            offsets = torch.rand(args.places, 3, generator=generator)
            points = ((cells[:, :, None] + offsets) * (2.0 / CELLS) - 1).reshape(len(features), -1, 3)
            target = autoencoder.query(features, points).reshape(*cells.shape[:2], args.places)
        total, values = loss(patches(features, cells, offsets), target)
        leg.step(total)
        report({"loss": total.detach(), **values})
    leg.save()
    print(f"ended at step {leg.steps}", flush=True)


if __name__ == "__main__":
    main()
