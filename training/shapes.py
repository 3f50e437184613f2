"""One random shape from (split, index), reproducibly; what the test split holds out is decided here. NumPy only.

Frozen: changing anything a draw depends on changes the test set, so the test generator's digest is checked
by `training.testset`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from training.grammars import GRAMMARS, HELD_OUT
from training.grammars.clay import Clay
from training.sdf import Shape, Warp

Split = Literal["train", "test"]
ENTROPY: dict[Split, int] = {"train": 0x6B696C6E, "test": 0x74657374}

HELD_OUT_SHARE = 0.2
"""Share of the test split that comes from grammars training never draws from."""


def generator(split: Split, index: int, purpose: int = 0) -> np.random.Generator:
    """PCG64 seeded by (split, index, purpose): shapes, views and noise never share a stream."""
    return np.random.default_rng(np.random.SeedSequence([ENTROPY[split], index, purpose]))


def make(split: Split, index: int) -> Shape:
    rng = generator(split, index)
    held_out = split == "test" and rng.random() < HELD_OUT_SHARE
    table = HELD_OUT if held_out else GRAMMARS
    weights = np.array([w for _, w in table.values()])
    kind = list(table)[int(rng.choice(len(table), p=weights / weights.sum()))]
    clay = Clay(rng)
    table[kind][0](clay)
    return Shape(tuple(clay.parts), _warp(rng, split), 1.6, kind)


def _band(rng: np.random.Generator, split: Split, limit: float) -> float:
    """A signed strength; the magnitudes 0.4–0.6 of the limit are the test split's, and only those."""
    a = rng.uniform(0.4, 0.6) if split == "test" else rng.choice([rng.uniform(0.0, 0.4), rng.uniform(0.6, 1.0)])
    return float(a * limit * rng.choice([-1, 1]))


def _warp(rng: np.random.Generator, split: Split) -> Warp:
    always = split == "test"
    stretch = np.exp(rng.normal(0, 0.14, 3))
    taper = _band(rng, split, 0.5) if always or rng.random() < 0.35 else 0.0
    bend = _band(rng, split, 0.35) if rng.random() < 0.12 else 0.0
    twist = _band(rng, split, 0.8) if rng.random() < 0.1 else 0.0
    bump = float(rng.uniform(0.005, 0.035)) if rng.random() < 0.3 else 0.0
    frequency = float(rng.uniform(3, 11))
    phase = rng.uniform(0, 6.28, 3).astype(np.float32)
    sx, sy, sz = (float(s) for s in np.clip(stretch, 0.7, 1.4))
    return Warp((sx, sy, sz), taper, bend, twist, bump, frequency, phase)
