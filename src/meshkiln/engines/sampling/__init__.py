"""How a flow is integrated from noise to data: steps, solver, guidance and forecasts, for any model of this family.

    plan ─ trajectory ─ asks ─┐
    plan ─ trajectory ─ asks ─┼─ network, in batches
    plan ─ trajectory ─ asks ─┘

`plan` is what is asked for, `trajectory` one item's integration, `forecast` evaluations that are foretold instead,
`batch` many items at once. An engine declares the parameters it wants of those below, and gives `batch.integrate` a
network: a function that answers a list of asks (item, x, t, with or without the condition). Nothing here knows what
latents are.
Descriptions only; the modules need numpy, and no inference runtime.
"""

from __future__ import annotations

from meshkiln.engines.base import Parameter

TEACHER, STUDENT = "teacher", "student"
SOLVERS = ("euler", "heun", "adams")

STEPS = Parameter("steps", 50, "steps of the flow from noise to shape", low=1, high=200)
SOLVER = Parameter(
    "solver",
    "euler",
    "how a step of the teacher is taken: euler and adams ask the network once a step, heun twice",
    choices=SOLVERS,
)
SHIFT = Parameter(
    "shift", 1.0, "time schedule of the teacher: 1 is even steps, more spends them near the noise", low=0.1, high=20.0
)
GUIDANCE_SCALE = Parameter(
    "guidance_scale",
    3.0,
    "classifier-free guidance of the teacher: 1 follows the picture as the model learned it, more follows it harder",
    low=0.0,
    high=20.0,
)
GUIDANCE_START = Parameter(
    "guidance_start", 0.0, "time from which the teacher is guided: 0 is noise, 1 is data", low=0.0, high=1.0
)
GUIDANCE_END = Parameter("guidance_end", 1.0, "time up to which the teacher is guided", low=0.0, high=1.0)
CACHE_THRESHOLD = Parameter(
    "cache_threshold",
    0.0,
    "step caching of the teacher: an evaluation is forecast instead while its expected error is below this share of "
    "the velocity; 0 asks for every one",
    low=0.0,
    high=1.0,
)
SEED = Parameter("seed", 0, "of the noise the flow starts from", low=0, high=2**63 - 1)

SPANS = 16
"""Parts of the way that a student was taught to go: its times and spans are multiples of 1/16."""

OF_THE_TEACHER = ("solver", "shift", "guidance_scale", "guidance_start", "guidance_end", "cache_threshold")
"""Parameters that a distilled student has within it."""
