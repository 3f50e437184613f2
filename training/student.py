"""The student: the flow's transformer told how far to go, so that few evaluations without guidance do for many with it.

It learns the mean velocity from t to t + d along the teacher's own guided path,

    u(x(t), t, d) = (x(t + d) − x(t)) / d,        x' = v_null + g·(v_cond − v_null)

the quantity of shortcut models (Frans et al. 2024) and of progressive distillation (Salimans & Ho 2022), but with
targets that never move: the teacher is frozen and its paths are integrated once, finely, from noise to the end. Any
pair of points of a path is an example, on exactly the states that sampling meets, and no data latents are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.flow import Flow, Sizes
from training.precision import mixed

GRID = 16
"""A path is kept at t = 0, 1/16, …, 1; the student's times and spans are multiples of that."""


class Student(nn.Module):
    """x (B, L, D), t (B,), d (B,), tokens (B, T, W) → mean velocity (B, L, D) over [t, t + d].

    Starts as the teacher without guidance: what the span says is added to the time's embedding, and is zero at first.
    The picture encoder stays the teacher's.
    """

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        sizes = sizes or Sizes()
        self.flow = Flow(sizes)
        del self.flow.picture
        w = sizes.width
        self.span = nn.Sequential(nn.Linear(64, w), nn.SiLU(), nn.Linear(w, w))
        nn.init.zeros_(self.span[-1].weight)
        nn.init.zeros_(self.span[-1].bias)

    def forward(self, x: Tensor, t: Tensor, d: Tensor, tokens: Tensor) -> Tensor:
        time = self.flow.time_in(self.flow.waves(t)) + self.span(self.flow.waves(d))
        return self.flow.steered(x, time, tokens)


def begin(teacher: Flow) -> Student:
    """A student that says what the teacher says of the conditional velocity, whatever the span."""
    student = Student(teacher.sizes)
    own = {name: value for name, value in teacher.state_dict().items() if not name.startswith("picture.")}
    student.flow.load_state_dict(own)
    return student


@torch.no_grad()
def paths(teacher: Flow, noise: Tensor, tokens: Tensor, guidance: float, steps: int = GRID) -> Tensor:
    """The teacher's guided paths (B, steps + 1, L, D) from noise (B, L, D) for tokens (B, T, W).

    Adams–Bashforth of second order on equal steps: as many evaluations as Euler's, an order more exact.
    """
    both = torch.cat([tokens, teacher.null_tokens().to(tokens.dtype).expand_as(tokens)])
    x, points, before = noise, [noise], None
    for k in range(steps):
        t = torch.full((len(both),), k / steps)
        with mixed():
            v, free = teacher(torch.cat([x, x]), t, both).chunk(2)
        v = free + guidance * (v - free)
        x = x + (v if before is None else 1.5 * v - 0.5 * before) / steps
        before = v
        points.append(x)
    return torch.stack(points, dim=1)


@torch.no_grad()
def halved(student: Student, x: Tensor, t: Tensor, d: Tensor, tokens: Tensor) -> Tensor:
    """Mean velocity (B, L, D) over [t, t + d] of two steps of d/2 by `student`: progressive distillation's target."""
    with mixed():
        first = student(x, t, d / 2, tokens).float()
        second = student(x + first * (d / 2)[:, None, None], t + d / 2, d / 2, tokens).float()
    return (first + second) / 2


def equal_spans(count: int, span: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """First and last grid index (count,) of spans of `span` sixteenths, as equal steps take them."""
    first = torch.randint(0, GRID // span, (count,), generator=generator) * span
    return first, first + span


def ends(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """First and last grid index (count,) of the spans to learn.

    Half of them are the spans that 1, 2, 4 or 8 equal steps take, the other half any: budgets in between use those.
    """
    n = 2 ** torch.randint(0, 4, (count,), generator=generator)
    k = (torch.rand(count, generator=generator) * n).long()
    regular = torch.stack([k, k + 1]) * (GRID // n)
    a = torch.randint(0, GRID, (count,), generator=generator)
    b = a + 1 + (torch.rand(count, generator=generator) * (GRID - a)).long()
    either = torch.rand(count, generator=generator) < 0.5
    first, last = torch.where(either, regular, torch.stack([a, b]))
    return first, last
