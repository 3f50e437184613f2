"""What one item's sampling is to be: pure values, from the parameters that matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from meshkiln.engines.base import Scalar
from meshkiln.engines.sampling import SPANS, STUDENT, TEACHER


@dataclass(frozen=True, slots=True)
class Plan:
    """How one item goes from noise to data. Times run from 0 (noise) to 1 (data).

    model : "teacher", the velocity at a time; or "student", the mean velocity over a step, guidance within it, for at
        most 16 steps
    guidance_scale : v = v_null + scale·(v_cond − v_null) (Ho & Salimans 2022) at times from `guidance_start` to before
        `guidance_end` (Kynkäänniemi et al. 2024, "Applying guidance in a limited interval"); v_cond at others
    cache_threshold : largest error a forecast may be expected to have, as a share of the velocity; 0 is no forecasts
    """

    steps: int
    model: str = TEACHER
    solver: str = "euler"
    shift: float = 1.0
    guidance_scale: float = 1.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    cache_threshold: float = 0.0

    @classmethod
    def of(cls, parameters: Mapping[str, Scalar]) -> Plan:
        """The plan that a stage's parameters ask for; those that do not matter to its model may be missing."""
        names = ("model", "solver", "shift", "guidance_scale", "guidance_start", "guidance_end", "cache_threshold")
        given = {name: parameters[name] for name in names if name in parameters}
        if given.get("model") == STUDENT:
            given = {"model": STUDENT}
        return cls(int(parameters["steps"]), **given)  # type: ignore[arg-type]

    def times(self) -> list[float]:
        """The steps' bounds, 0 to 1, steps + 1 of them.

        For the student even, as nearly as multiples of 1/16 are. Shifted for the teacher as by Esser et al. 2024 (SD3,
        eq. 23), σ = 1 − t being the noise's share: σ' = s·σ / (1 + (s − 1)·σ), that is t' = t / (1 + (s − 1)·(1 − t)).
        """
        even = [step / self.steps for step in range(self.steps + 1)]
        if self.model == STUDENT:
            return [round(t * SPANS) / SPANS for t in even]
        return [t / (1 + (self.shift - 1) * (1 - t)) for t in even]

    def strides(self) -> list[tuple[float, float]]:
        """(from, to) of each step."""
        return list(pairwise(self.times()))

    def guided(self, t: float) -> bool:
        """Whether the velocity at time t is a guided one, which costs two evaluations."""
        return self.guidance_scale != 1 and self.guidance_start <= t < self.guidance_end
