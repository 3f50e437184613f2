"""Trains the autoencoder on the shards there are, and takes in the ones that appear meanwhile.

python -m training.launch 2 training.train_autoencoder SHARDS OUT --minutes 45
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.autoencoder import Autoencoder, loss
from training.dataset import NEAR
from training.loop import Leg, Report, join
from training.precision import mixed
from training.state import load

HIDDEN = ("encoder", "decoder", "query_mlp", "query_q", "query_out", "point_mlp")
FIELDS = ("surface", "normal", "query", "distance")


class Shapes:
    """The geometry of all shards under a folder, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, set[Path]()
        self.shards: list[dict[str, np.ndarray]] = []
        self.look()

    def look(self) -> int:
        """Takes in new shards; how many records there are now."""
        for path in sorted(set(self.folder.glob("shard-*.npz")) - self.seen):
            with np.load(path) as shard:
                self.shards.append({k: shard[k] for k in FIELDS})
            self.seen.add(path)
        return sum(len(s["surface"]) for s in self.shards)

    def batch(
        self, rng: np.random.Generator, size: int, queries: int, surface: int = 1024
    ) -> tuple[Tensor, Tensor, Tensor]:
        """surface (size, 1024, 6), points (size, queries, 3), distances; half of them mirrored in x."""
        s, p, d = [], [], []
        for _ in range(size):
            shard = self.shards[rng.integers(len(self.shards))]
            i = int(rng.integers(len(shard["surface"])))
            near = rng.integers(0, NEAR, queries // 2)
            pick = np.concatenate([near, rng.integers(NEAR, shard["query"].shape[1], queries // 2)])
            flip = np.array([rng.choice([-1, 1]), 1, 1], np.float32)
            points = shard["surface"][i, :surface].astype(np.float32) * flip
            normals = shard["normal"][i, :surface].astype(np.float32) / 127 * flip
            s.append(np.concatenate([points, normals], axis=1))
            p.append(shard["query"][i][pick].astype(np.float32) * flip)
            d.append(shard["distance"][i][pick].astype(np.float32))
        return torch.from_numpy(np.stack(s)), torch.from_numpy(np.stack(p)), torch.from_numpy(np.stack(d))


@torch.no_grad()
def standardise(model: Autoencoder, shapes: Shapes, rng: np.random.Generator, count: int = 1024) -> None:
    """Sets the latents' per-channel mean and deviation from `count` records."""
    latents = []
    for _ in range(count // 64):
        with mixed():
            latents.append(model.encode(shapes.batch(rng, 64, 2)[0])[0])
    z = torch.cat(latents).flatten(0, 1)
    model.latent_mean.copy_(z.mean(0))
    model.latent_std.copy_(z.std(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--batch", type=int, default=12, help="per process")
    parser.add_argument("--queries", type=int, default=768)
    parser.add_argument("--kl", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights of an earlier leg (.npz or .pt)")
    parser.add_argument("--rate", type=float, default=1.0, help="scales the learning rates; 0.5 for a further leg")
    parser.add_argument("--decoder", action="store_true", help="of the decoder alone: latents stay as they are")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rank = join()
    torch.manual_seed(rank)
    args.out.mkdir(parents=True, exist_ok=True)
    model = Autoencoder().train()
    if args.start:
        load(model, args.start)
    if args.decoder:
        model.freeze_encoder()
    leg = Leg(model, args.out / "autoencoder.pt", args.minutes, HIDDEN, 0.02 * args.rate, 1.5e-3 * args.rate)
    shapes = Shapes(args.shards)
    rng = np.random.default_rng([leg.steps, rank])
    report = Report(leg, 50)
    records = shapes.look()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {records} records", flush=True)
    while leg.running():
        surface, points, distance = shapes.batch(rng, args.batch, args.queries)
        with mixed():
            logits, mean, log_variance = model(surface, points)
        total, values = loss(logits, distance, mean, log_variance, args.kl)
        leg.step(total)
        if leg.steps % 50 == 0:
            records = shapes.look()
        report(values, f"{records} records")
    if rank == 0 and not args.decoder:
        standardise(leg.average, shapes, rng)
    leg.save()
    print(f"ended at step {leg.steps}", flush=True)


if __name__ == "__main__":
    main()
