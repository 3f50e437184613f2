"""The patch decoder: the field of a latent set as local expansions about the nodes of a coarse lattice.

A partition of unity (Ohtake et al. 2003, "Multi-level Partition of Unity Implicits") whose local functions are learned.
Every node n of the lattice holds K numbers c_n; in a cell, the field is what its eight corners say, blended:

    f(p) = Σ_n w(u_n) ⟨c_n, b(u_n)⟩,    u_n = (p − n) / cell ∈ [−1, 1]³,    w(u) = Π s(1 − |u_i|),  s(t) = 3t² − 2t³

c_n comes from the latents as the query head's answer does, once per node; b(u) depends on the offset alone, so all
samples of a cell are one row of a matrix product. Distilled from the query head, which stays the reference.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from training.autoencoder import Autoencoder, Sizes
from training.layers import Norm, attend, heads, merge

CELLS = 32
"""Cells of the lattice along an axis of the box."""

TERMS = 96
"""K, numbers a node holds."""

CORNERS = tuple(product((0.0, 1.0), repeat=3))
"""A cell's corners, the last axis fastest."""

_POLYNOMIAL = 10
"""Terms that are fixed: 1, u, and the products of two."""


class Patches(nn.Module):
    def __init__(self, sizes: Sizes | None = None, terms: int = TERMS) -> None:
        super().__init__()
        whole = Autoencoder(sizes or Sizes())
        w = whole.sizes.width
        self.sizes, self.count, self.terms = whole.sizes, whole.count, terms
        self.fourier = whole.fourier
        self.query_in, self.query_q, self.query_out = whole.query_in, whole.query_q, whole.query_out
        self.query_norm, self.query_mlp, self.query_last = whole.query_norm, whole.query_mlp, whole.query_last
        self.last_norm = Norm(w)
        self.last = nn.Linear(w, terms - 1)
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("frequencies", torch.pi / 2 * torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0]), persistent=False)
        self.basis_in = nn.Linear(3 + 6 * len(self.frequencies), 192)
        self.basis_mid = nn.Linear(192, 192)
        self.basis_last = nn.Linear(192, terms - _POLYNOMIAL)

    def nodes(self, features: Tensor, points: Tensor) -> Tensor:
        """features (B, L, 2·width) of `Autoencoder.features`, nodes' places (B, N, 3) → (B, N, K)."""
        k, v = (heads(y, self.count) for y in features.split(self.sizes.width, dim=-1))
        x = self.query_in(self.fourier(points))
        q = heads(self.query_q(x) * (k.shape[-1] - 4) ** -0.5, self.count)
        one = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)[:, None].expand(-1, self.count, -1, -1)
        q = torch.cat([q, one.to(q.dtype)], dim=-1)
        x = x + self.query_out(merge(attend(q, k, v, scale=1.0)))
        x = x + self.query_mlp(self.query_norm(x))
        # The first number is the field's value about the node, as the query head gives it: that is where it starts.
        return torch.cat([self.query_last(x), self.last(self.last_norm(x))], dim=-1)

    def basis(self, offsets: Tensor) -> Tensor:
        """Places in a cell (P, 3) in [0, 1]³ → (8·K, P): what each number of each corner counts for there."""
        rows = []
        for corner in CORNERS:
            u = offsets - torch.tensor(corner)
            near = 1 - u.abs()
            weight = (near * near * (3 - 2 * near)).prod(dim=-1, keepdim=True)
            x, y, z = u.unbind(-1)
            fixed = torch.stack([torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, z * x], dim=-1)
            angle = (u[..., None] * self.frequencies).flatten(-2)
            h = torch.cat([u, torch.sin(angle), torch.cos(angle)], dim=-1)
            h = nn.functional.gelu(self.basis_in(h), approximate="tanh")
            h = h + nn.functional.gelu(self.basis_mid(h), approximate="tanh")
            rows.append(weight * torch.cat([fixed, self.basis_last(h)], dim=-1))
        return torch.cat(rows, dim=-1).T

    def forward(self, features: Tensor, cells: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, C, P) at the same places (P, 3) in each of the cells (B, C, 3), given by their lower corner."""
        step = 2.0 / CELLS
        corners = (cells[:, :, None] + torch.tensor(CORNERS)) * step - 1  # (B, C, 8, 3)
        b, c = cells.shape[:2]
        held = self.nodes(features, corners.reshape(b, c * 8, 3)).reshape(b, c, 8 * self.terms)
        return held.float() @ self.basis(offsets)


def begin(autoencoder: Autoencoder) -> Patches:
    """Patches whose nodes hold the query head's own value and nothing else."""
    patches = Patches(autoencoder.sizes)
    own = {k: v for k, v in autoencoder.state_dict().items() if k in patches.state_dict()}
    patches.load_state_dict(own, strict=False)
    return patches


def loss(logits: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Relative to the distance from the surface: a vertex moves by the error there over the slope.

    Also the 0.5 and 0.95 quantiles of the error within two voxels of a 256³ grid, in those voxels.
    """
    error = (logits - target).abs()
    weight = 1 / (1 + target.abs())
    huber = torch.where(error < 0.1, error * error * 5, error - 0.05)
    with torch.no_grad():
        voxel = 60 * 2 / 256  # logits
        near = error[target.abs() < 2 * voxel] / voxel
        half, most = torch.quantile(near[:100_000], torch.tensor([0.5, 0.95])) if len(near) else torch.zeros(2)
        wrong = ((logits > 0) != (target > 0)).float().mean()
    return (huber * weight).mean(), {"half": half, "q95": most, "wrong": wrong}
