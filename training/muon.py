"""Muon (K. Jordan et al. 2024): momentum whose matrix is replaced by the nearest orthogonal one."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from training.precision import quick


@torch.no_grad()
def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Newton–Schulz iteration with the quintic of Jordan's post, in bfloat16 where quicker; g (rows, columns)."""
    x = g.to(quick())
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """For hidden weight matrices only; everything else goes to AdamW."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        for group in self.param_groups:
            updates = []
            for i, p in enumerate(group["params"]):
                state = self.state[p]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(p)
                v = state["velocity"].mul_(group["momentum"]).add_(p.grad)
                mine = i % world == rank  # each process orthogonalises its share, then all add them up
                updates.append(orthogonalise(p.grad + group["momentum"] * v) if mine else torch.zeros_like(p))
            if world > 1:
                flat = torch.cat([u.flatten() for u in updates])
                dist.all_reduce(flat)
                parts = flat.split([u.numel() for u in updates])
                updates = [part.view_as(u) for part, u in zip(parts, updates, strict=True)]
            for p, update in zip(group["params"], updates, strict=True):
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def split(named: list[tuple[str, Tensor]], hidden: tuple[str, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices whose name contains one of `hidden` are Muon's, the rest AdamW's."""
    muon = [p for n, p in named if p.ndim == 2 and any(h in n for h in hidden)]
    ids = {id(p) for p in muon}
    return muon, [p for _, p in named if id(p) not in ids]
