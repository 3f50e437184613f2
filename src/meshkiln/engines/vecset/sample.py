"""Stage `sample`: image tokens become a latent set, by flow matching from noise that only the seed decides.

x(0) = noise,  dx/dt = v(x, t | tokens),  x(1) = latents          (rectified flow: Liu et al. 2022, Lipman et al. 2022)
v = v_null + guidance·(v_cond − v_null)                            (classifier-free guidance: Ho & Salimans 2022)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from meshkiln.engines.base import Work
from meshkiln.engines.vecset import runtime
from meshkiln.engines.vecset.grid import F32
from meshkiln.engines.vecset.manifest import manifest, path

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

Velocity = Callable[[F32, F32, F32], F32]
"""x (B, L, D), t (B,), tokens (B, T, C) → velocity (B, L, D)."""


def warm() -> None:
    """Load the graph."""
    runtime.session("flow.onnx")


def sample(batch: Sequence[Work]) -> list[Value]:
    """The stage: for each `{"tokens", …}`, `{"latents": (L, D) float32}` and what else `encode` gave.

    Parameters `steps`, `guidance_scale`, `seed`. Items of different steps share a batch; none sees another's schedule.
    """
    sizes = manifest()
    latents: list[F32 | None] = [None] * len(batch)
    # Each number of steps is integrated apart: what an item computes is then the same whoever it came with.
    for steps in sorted({int(work.parameters["steps"]) for work in batch}):
        where = [i for i, work in enumerate(batch) if work.parameters["steps"] == steps]
        works = [batch[i] for i in where]

        def report(done: int, works: Sequence[Work] = works, steps: int = steps) -> None:
            for work in works:
                work.report(done, steps)

        ends = euler(
            _velocity,
            np.stack([noise(int(work.parameters["seed"]), (sizes.latents, sizes.latent_dim)) for work in works]),
            np.stack([work.inputs[0]["tokens"] for work in works]),
            _null(),
            np.array([work.parameters["guidance_scale"] for work in works], np.float32),
            steps,
            report,
        )
        for i, end in zip(where, ends, strict=True):
            latents[i] = end
    return [
        {"latents": end, "outline": work.inputs[0]["outline"], "window": work.inputs[0]["window"]}
        for end, work in zip(latents, batch, strict=True)
        if end is not None
    ]


def noise(seed: int, shape: tuple[int, ...]) -> F32:
    """Standard normal noise that is a function of the seed alone, on any machine and numpy version.

    Philox-4x64 (Salmon et al. 2011) keyed with `seed` gives 64-bit words, whose stream numpy guarantees; pairs of them
    are uniforms of 53 bits, and Box & Muller (1958) makes normals of those, cosines first.
    """
    count = int(np.prod(shape))
    words = np.random.Philox(key=seed).random_raw(2 * ((count + 1) // 2)).reshape(2, -1)
    uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log1p(-uniform[0])), 2 * np.pi * uniform[1]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return normal[:count].reshape(shape).astype(np.float32)


def euler(
    velocity: Velocity,
    x: F32,
    tokens: F32,
    null: F32,
    guidance: F32,
    steps: int,
    report: Callable[[int], None] = lambda done: None,
) -> F32:
    """Latents (B, L, D) from noise x (B, L, D) in `steps` equal Euler steps from t = 0 to 1.

    tokens (B, T, C), null (T, C), guidance (B,): 1 is the conditional model alone and costs one evaluation a step
    instead of two.
    """
    guided = np.flatnonzero(guidance != 1)
    conditions = np.concatenate([tokens, np.broadcast_to(null, (len(guided), *null.shape))])
    weight = guidance[guided, None, None]
    for step in range(steps):
        t, next_t = step / steps, (step + 1) / steps
        times = np.full(len(conditions), t, np.float32)
        v = velocity(np.concatenate([x, x[guided]]), times, conditions)
        ahead, unconditional = v[: len(x)], v[len(x) :]
        ahead[guided] = unconditional + weight * (ahead[guided] - unconditional)
        x = x + np.float32(next_t - t) * ahead
        report(step + 1)
    return x


def _velocity(x: F32, t: F32, tokens: F32) -> F32:
    return runtime.run("flow.onnx", x=x, t=t, tokens=tokens)


@cache
def _null() -> F32:
    null: F32 = np.load(path("null.npy"))
    return null
