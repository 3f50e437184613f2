"""Stage `sample`: image tokens become a latent set, by flow matching from noise that only the seed decides.

x(0) = noise,  dx/dt = v(x, t | tokens),  x(1) = latents          (rectified flow: Liu et al. 2022, Lipman et al. 2022)

How that is integrated is in `meshkiln.engines.sampling`; here are the noise and the two networks: the teacher
`flow.onnx` and, where it has been distilled, `student.onnx`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from meshkiln.engines.base import Work
from meshkiln.engines.sampling.batch import integrate
from meshkiln.engines.sampling.plan import Plan
from meshkiln.engines.sampling.trajectory import Answers, Ask, trajectory
from meshkiln.engines.vecset import runtime
from meshkiln.engines.vecset.grid import F32
from meshkiln.engines.vecset.manifest import manifest, path

if TYPE_CHECKING:
    from meshkiln.engines.base import Value


def warm() -> None:
    """Load the graph that the recipes want; the student's waits to be asked for."""
    runtime.measured()
    runtime.session("flow.onnx")


def sample(batch: Sequence[Work]) -> list[Value]:
    """The stage: for each `{"tokens", …}`, `{"latents": (L, D) float32}` and what else `encode` gave.

    Parameters: those of `engines.sampling`. Items of any plans share a batch; none sees another's.
    """
    sizes = manifest()
    tokens = [work.inputs[0]["tokens"] for work in batch]
    ways = [
        trajectory(
            Plan.of(work.parameters),
            noise(int(work.parameters["seed"]), (sizes.latents, sizes.latent_dim)),
            work.report,
        )
        for work in batch
    ]

    def network(asked: Sequence[tuple[int, Ask]]) -> Answers:
        return answers(asked, tokens)

    return [
        {"latents": end, "outline": work.inputs[0]["outline"], "window": work.inputs[0]["window"]}
        for end, work in zip(integrate(ways, network), batch, strict=True)
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


def answers(asked: Sequence[tuple[int, Ask]], tokens: Sequence[F32]) -> Answers:
    """Velocities (L, D), in calls of so many asks as the machine does best.

    tokens : (T, C) of each item
    """
    found: dict[int, F32] = {}
    for student in (False, True):
        where = [at for at, (_, ask) in enumerate(asked) if (ask.stride > 0) == student]
        if not where:
            continue
        for first in range(0, len(where), runtime.batch()):
            part = where[first : first + runtime.batch()]
            found.update(zip(part, _call([asked[at] for at in part], tokens, student), strict=True))
    return [found[at] for at in range(len(asked))]


def _call(asked: Sequence[tuple[int, Ask]], tokens: Sequence[F32], student: bool) -> F32:
    asks = [ask for _, ask in asked]
    given = {
        "x": np.stack([ask.x for ask in asks]),
        "t": np.array([ask.t for ask in asks], np.float32),
        "tokens": np.stack([tokens[item] if ask.conditional else _null() for item, ask in asked]),
    }
    if student:
        return runtime.run("student.onnx", d=np.array([ask.stride for ask in asks], np.float32), **given)
    return runtime.run("flow.onnx", **given)


@cache
def _null() -> F32:
    null: F32 = np.load(path("null.npy"))
    return null
