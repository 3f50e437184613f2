"""Distils the flow, guidance included, into the student of `student.py`.

    python -m training.launch 2 training.train_student SHARDS OUT --teacher OUT/flow.pt --guidance 2 --minutes 40

Pictures come from the shards; paths are made as training goes and each is used many times before newer ones take its
place. Resumable like the other legs (the paths are made anew).

`--learn` names what is distilled, to tell what each way gives by itself (`compare_students.py` judges them):

- `spans`, the student that is bundled: the mean velocity over any span of the teacher's path.
- `guidance`: the shortest spans alone, so that one evaluation does for two and the number of steps stays.
- `halving`: those first, then each length from two steps of the length below, as the student took them when its turn
  came (progressive distillation, Salimans & Ho 2022), a fifth of the leg each.
- `reflow`: the straight line from a path's noise to its end (Liu et al. 2023), which few Euler steps are to follow.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.flow import Flow
from training.loop import Leg, Report, join
from training.precision import mixed
from training.state import load
from training.student import GRID, Student, begin, ends, equal_spans, halved, paths
from training.train_flow import Pictures

HIDDEN = ("flow.blocks.",)


class Paths:
    """The latest `most` paths of the teacher, with the tokens that steered them; half precision."""

    def __init__(self, teacher: Flow, pictures: Pictures, guidance: float, most: int) -> None:
        self.teacher, self.pictures, self.guidance, self.most = teacher, pictures, guidance, most
        self.points: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.made = 0

    @torch.no_grad()
    def make(self, rng: np.random.Generator, generator: torch.Generator, count: int) -> None:
        """Adds `count` paths from new noise for pictures drawn anew."""
        with mixed():
            tokens = self.teacher.picture(self.pictures.images(rng, count))
        sizes = self.teacher.sizes
        noise = torch.randn(count, len(self.teacher.anchors), sizes.latent_dim, generator=generator)
        points = paths(self.teacher, noise, tokens, self.guidance)
        for one, its in zip(points.half(), tokens.half(), strict=True):
            if len(self.points) < self.most:
                self.points.append(one)
                self.tokens.append(its)
            else:
                self.points[self.made % self.most] = one
                self.tokens[self.made % self.most] = its
            self.made += 1

    def batch(self, rng: np.random.Generator, first: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        """x (B, L, D), t, d (B,), tokens (B, T, W), mean velocity (B, L, D) from `first` to `last` (B,) of the grid."""
        pick = rng.integers(0, len(self.points), len(first))
        a = torch.stack([self.points[i][f] for i, f in zip(pick, first, strict=True)]).float()
        b = torch.stack([self.points[i][e] for i, e in zip(pick, last, strict=True)]).float()
        d = (last - first) / GRID
        tokens = torch.stack([self.tokens[i] for i in pick]).float()
        return a, first / GRID, d, tokens, (b - a) / d[:, None, None]


class Lesson:
    """What a step learns, after the way that `learn` names: as `Paths.batch` has it."""

    def __init__(self, learn: str, store: Paths, leg: Leg) -> None:
        self.learn, self.store, self.leg = learn, store, leg
        self.rung, self.below = 0, copy.deepcopy(leg.model)

    def __call__(self, rng: np.random.Generator, generator: torch.Generator, count: int) -> tuple[Tensor, ...]:
        if self.learn == "spans":
            return self.store.batch(rng, *ends(count, generator))
        if self.learn == "guidance":
            return self.store.batch(rng, *equal_spans(count, 1, generator))
        if self.learn == "halving":
            return self._halving(rng, generator, count)
        x, _, _, tokens, velocity = self.store.batch(rng, *equal_spans(count, GRID, generator))
        t = torch.rand(count, generator=generator)
        return x + t[:, None, None] * velocity, t, torch.zeros(count), tokens, velocity

    def _halving(self, rng: np.random.Generator, generator: torch.Generator, count: int) -> tuple[Tensor, ...]:
        rungs = GRID.bit_length()
        rung = min(int(self.leg.share * rungs), rungs - 1)
        if rung > self.rung:
            # The average, not the weights of the moment: they are what would be bundled.
            self.rung = rung
            self.below.load_state_dict(self.leg.average.state_dict())
        x, t, d, tokens, velocity = self.store.batch(rng, *equal_spans(count, 2**rung, generator))
        if rung:
            assert isinstance(self.below, Student)
            velocity = halved(self.below, x, t, d, tokens)
        return x, t, d, tokens, velocity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--guidance", type=float, required=True, help="the scale that is distilled in")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--batch", type=int, default=32, help="spans per process and step")
    parser.add_argument("--paths", type=int, default=4096, help="paths each process keeps")
    parser.add_argument("--uses", type=int, default=24, help="spans learned per path made")
    parser.add_argument("--start", type=Path, help="weights of an earlier leg (.npz or .pt)")
    parser.add_argument("--rate", type=float, default=0.5, help="scales the learning rates")
    parser.add_argument("--learn", choices=["spans", "guidance", "halving", "reflow"], default="spans")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    rank = join()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = Flow().eval().requires_grad_(False)
    load(teacher, args.teacher)
    student = begin(teacher).train()
    if args.start:
        load(student, args.start)
    leg = Leg(student, args.out / "student.pt", args.minutes, HIDDEN, 0.02 * args.rate, 1.5e-3 * args.rate)
    leg.extra = {"guidance": args.guidance}
    generator = torch.Generator().manual_seed(leg.steps * 2 + rank)
    rng = np.random.default_rng([leg.steps, rank])
    store = Paths(teacher, Pictures(args.shards, rank, leg.world), args.guidance, args.paths)
    lesson = Lesson(args.learn, store, leg)
    if args.compile:
        teacher.compile(dynamic=False)
        student.compile(dynamic=False)
    while len(store.points) < 8 * args.batch:
        store.make(rng, generator, 16)
    report = Report(leg, 25)
    while leg.running():
        if store.made * args.uses < leg.steps * args.batch:
            store.make(rng, generator, 16)
        x, t, d, tokens, target = lesson(rng, generator, args.batch)
        with mixed():
            velocity = student(x, t, d, tokens)
        error = ((velocity - target) ** 2).mean((1, 2))
        leg.step(error.mean())
        long = d > 0.4
        values = {
            "all": error.mean().detach(),
            "long": (error.detach() * long).sum() / long.sum().clamp(min=1),
            "short": (error.detach() * ~long).sum() / (~long).sum().clamp(min=1),
        }
        report(values, f"{store.made} paths")
    leg.save()
    print(f"ended at step {leg.steps}", flush=True)


if __name__ == "__main__":
    main()
