"""Trains the picture-conditioned flow on the autoencoder's latents of the shards, encoded as they are drawn.

python -m training.launch 2 training.train_flow SHARDS OUT --autoencoder OUT/autoencoder.pt --minutes 50
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.autoencoder import Autoencoder
from training.flow import Flow, loss
from training.loop import Leg, Report, join
from training.precision import mixed
from training.state import load

HIDDEN = ("picture.blocks", "blocks.")
FIELDS = ("surface", "normal", "image", "aux")


class Pictures:
    """Surfaces and pictures of all shards under a folder, in memory."""

    def __init__(self, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.shards: list[dict[str, np.ndarray]] = []
        for path in sorted(folder.glob("shard-*.npz"))[rank::world]:
            with np.load(path) as shard:
                self.shards.append({k: shard[k] for k in FIELDS})

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """surface (size, 2048, 6), image (size, 4, 128, 128), aux (size, 4, 32, 32): half mirrored, colours varied.

        All points that a record has: which of a surface's points a set is encoded from is noise in what the flow
        learns, of a variance of 0.05 with 1,024 of them and half that with these, where the flow's error next to the
        noise is 0.48. A step takes a tenth longer for it.
        """
        s, im, au = [], [], []
        for _ in range(size):
            shard = self.shards[rng.integers(len(self.shards))]
            i = int(rng.integers(len(shard["image"])))
            mirrored = bool(rng.random() < 0.5)
            points = np.concatenate([shard["surface"][i], shard["normal"][i] / np.float32(127)], axis=1)
            image = shard["image"][i].astype(np.float32) / 255
            aux = shard["aux"][i].astype(np.float32)
            aux = np.where(aux <= -128, -2.0, aux / 120).astype(np.float32)
            if mirrored:
                points = points * np.array([-1, 1, 1, -1, 1, 1], np.float32)
                image, aux = image[:, :, ::-1], aux[:, :, ::-1].copy()
                aux[1] = np.where(aux[1] > -1.5, -aux[1], aux[1])
            s.append(points.astype(np.float32))
            im.append(_recolour(image, rng))
            au.append(aux)
        return torch.from_numpy(np.stack(s)), torch.from_numpy(np.stack(im)), torch.from_numpy(np.stack(au))

    def images(self, rng: np.random.Generator, size: int) -> Tensor:
        """(size, 4, 128, 128): pictures alone, drawn and varied as in `batch`."""
        images = []
        for _ in range(size):
            shard = self.shards[rng.integers(len(self.shards))]
            image = shard["image"][rng.integers(len(shard["image"]))].astype(np.float32) / 255
            images.append(_recolour(image[:, :, ::-1] if rng.random() < 0.5 else image, rng))
        return torch.from_numpy(np.stack(images))


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permuted channels, gain, gamma, less saturation; premultiplied stays premultiplied."""
    colour, alpha = image[:3][rng.permutation(3)], image[3:]
    if rng.random() < 0.3:
        colour = colour + (colour.mean(0, keepdims=True) - colour) * np.float32(rng.uniform(0, 1))
    colour = np.minimum(colour * np.float32(np.exp(rng.normal(0, 0.25))), alpha)
    return np.concatenate([colour, alpha]).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--batch", type=int, default=16, help="pictures per process")
    parser.add_argument("--copies", type=int, default=2, help="noises per picture")
    parser.add_argument("--start", type=Path, help="weights of an earlier leg (.npz or .pt)")
    parser.add_argument("--rate", type=float, default=1.0, help="scales the learning rates; 0.5 for a further leg")
    parser.add_argument("--fall", type=float, default=0.45, help="last share of the leg in which the rates fall to 0")
    parser.add_argument("--compile", action="store_true", help="by torch.compile: minutes to begin, then 1.7 × faster")
    args = parser.parse_args()
    rank = join()
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    args.out.mkdir(parents=True, exist_ok=True)
    autoencoder = Autoencoder().eval().requires_grad_(False)
    load(autoencoder, args.autoencoder)
    model = Flow().train()
    if args.start:
        load(model, args.start)
    leg = Leg(model, args.out / "flow.pt", args.minutes, HIDDEN, 0.02 * args.rate, 1.5e-3 * args.rate, fall=args.fall)
    if args.compile:  # after the averaged copy was taken, which stays as it is
        model.compile(dynamic=False)
        model.picture.compile(dynamic=False)
    torch.manual_seed(leg.steps * 2 + rank)
    pictures = Pictures(args.shards, rank, leg.world)
    rng = np.random.default_rng([leg.steps, rank])
    report = Report(leg, 25)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{count:.2f} M parameters, {sum(len(s['image']) for s in pictures.shards)} records", flush=True)
    while leg.running():
        surface, image, aux = pictures.batch(rng, args.batch)
        with torch.no_grad(), mixed():
            z = autoencoder.encode(surface)[0]
            z = (z - autoencoder.latent_mean) / autoencoder.latent_std
        total, values = loss(model, image, aux, z, args.copies)
        leg.step(total)
        report(values)
    leg.save()
    print(f"ended at step {leg.steps}", flush=True)


if __name__ == "__main__":
    main()
