"""The image-conditioned flow over latent sets: picture → tokens; noisy latents, time and tokens → velocity.

A diffusion transformer (Peebles & Xie 2023) trained by linear-path flow matching (Lipman et al. 2023; Liu et al. 2023):
x_t = (1 − t)·noise + t·data, velocity = data − noise, t logit-normal (Esser et al. 2024). Latents and picture tokens
live in the same x and y, so the cross-attention has a learned bias −β·|anchor − patch|² per head.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.autoencoder import anchors
from training.layers import Block, Fourier, Mlp, Norm, SelfAttention, heads, merge
from training.precision import mixed

TIMES = (-1.6, 1.2)
"""Mean and deviation of the logit of t in training: half of it is below 0.17. A latent set says its layout many times
over: from t = 0.3 on that can be read off x_t, and only before does the picture decide. A mean of −0.3, as is usual
for pictures' latents, leaves one sample in thirty below 0.1: eleven minutes of one core from the same weights took the
error at t = 0 to 0.525, and to 0.489 with a mean of −1.8. The wider deviation is for the late times' sake."""


@dataclass(frozen=True)
class Sizes:
    size: int = 128
    side: int = 8
    width: int = 192
    encoder_layers: int = 4
    layers: int = 6
    latent_dim: int = 16
    grid: tuple[int, int, int] = (5, 5, 4)
    aux: int = 32

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def patches(side: int) -> Tensor:
    """(side², 2): x and y of the token centres in the frame, row by row from the top."""
    a = (torch.arange(side) + 0.5) * 2 / side - 1
    y, x = torch.meshgrid(-a, a, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


class PictureEncoder(nn.Module):
    """(B, 4, 128, 128) → (B, 64, width): strided convolutions, then transformer blocks."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        widths = [4, 32, 64, 128, s.width]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.GELU(approximate="tanh")]
        self.stem = nn.Sequential(*layers[:-1])
        self.fourier = Fourier(3, axes=2)
        self.register_buffer("patches", patches(s.side), persistent=False)
        self.place = nn.Linear(self.fourier.size, s.width)
        self.blocks = nn.Sequential(*(Block(s.width, 3) for _ in range(s.encoder_layers)))
        self.norm = Norm(s.width)
        self.aux = nn.Linear(s.width, 4 * (s.aux // s.side) ** 2)
        self.sizes = s

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image * 2 - 1)
        x = F.avg_pool2d(x, x.shape[-1] // self.sizes.side).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(x + self.place(self.fourier(self.patches))))

    def maps(self, tokens: Tensor) -> Tensor:
        """Depth and normals seen by the tokens: (B, 4, 32, 32); only training asks."""
        s = self.sizes
        cell = s.aux // s.side
        y = self.aux(tokens).view(-1, s.side, s.side, 4, cell, cell)
        return y.permute(0, 3, 1, 4, 2, 5).reshape(-1, 4, s.aux, s.aux)


class CrossAttention(nn.Module):
    """From the latents to the picture, near patches first."""

    def __init__(self, width: int, head: int = 32) -> None:
        super().__init__()
        self.count = width // head
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = Norm(head), Norm(head)
        self.beta = nn.Parameter(torch.linspace(0.0, 3.0, self.count))

    def forward(self, x: Tensor, tokens: Tensor, squares: Tensor) -> Tensor:
        """x (B·R, L, W): R noisy copies per picture; tokens (B, T, W); squares (L, T) squared distances."""
        q = self.q_norm(heads(self.q(x), self.count))
        k, v = (heads(y, self.count) for y in self.kv(tokens).chunk(2, dim=-1))
        k = self.k_norm(k)
        bias = -(self.beta**2)[:, None, None] * squares
        r = x.shape[0] // tokens.shape[0]
        if r > 1:
            k, v = k.repeat_interleave(r, dim=0), v.repeat_interleave(r, dim=0)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias.to(q.dtype)
        return self.out(merge(torch.softmax(scores, dim=-1, dtype=scores.dtype) @ v))


class FlowBlock(nn.Module):
    """Self-attention, cross-attention, MLP; shift, scale and gate come from the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention = Norm(width), SelfAttention(width)
        self.norm2, self.cross = Norm(width), CrossAttention(width)
        self.norm3, self.mlp = Norm(width), Mlp(width)
        self.table = nn.Parameter(torch.randn(6, width) * 0.02)

    def forward(self, x: Tensor, tokens: Tensor, squares: Tensor, time: Tensor) -> Tensor:
        """time (B·R, 6, W)"""
        m = (time + self.table).to(x.dtype)[:, :, None].unbind(1)
        x = x + (1 + m[2]) * self.attention(self.norm1(x) * (1 + m[1]) + m[0])
        x = x + self.cross(self.norm2(x), tokens, squares)
        return x + (1 + m[5]) * self.mlp(self.norm3(x) * (1 + m[4]) + m[3])


class Flow(nn.Module):
    def __init__(self, sizes: Sizes = Sizes()) -> None:
        super().__init__()
        self.sizes = sizes
        w = sizes.width
        self.picture = PictureEncoder(sizes)
        home = anchors(sizes.grid)
        self.register_buffer("anchors", home, persistent=False)
        self.register_buffer("squares", torch.cdist(home[:, :2], patches(sizes.side)) ** 2, persistent=False)
        self.fourier = Fourier(3)
        self.place = nn.Linear(self.fourier.size, w)
        self.seed = nn.Parameter(torch.randn(len(home), w) * 0.02)
        self.latent_in = nn.Linear(sizes.latent_dim, w)
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(1000.0), 32)), persistent=False)
        self.time_in = nn.Sequential(nn.Linear(64, w), nn.SiLU(), nn.Linear(w, w), nn.SiLU())
        self.time_out = nn.Linear(w, 6 * w)
        self.blocks = nn.ModuleList(FlowBlock(w) for _ in range(sizes.layers))
        self.norm = Norm(w)
        self.last = nn.Linear(w, sizes.latent_dim)
        self.null = nn.Parameter(torch.randn(w) * 0.02)
        for layer in (self.time_out, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """x (B·R, L, D), t (B·R,), tokens (B, T, W) → velocity (B·R, L, D)."""
        return self.steered(x, self.time_in(self.waves(t)), tokens)

    def waves(self, t: Tensor) -> Tensor:
        """t (B,) → sines and cosines (B, 64)."""
        a = t[:, None] * self.frequencies
        return torch.cat([torch.sin(a), torch.cos(a)], dim=-1)

    def steered(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """`forward`, given what the blocks are told of the time: time (B·R, W)."""
        time = self.time_out(time).view(-1, 6, self.sizes.width)
        h = self.latent_in(x) + self.place(self.fourier(self.anchors)) + self.seed
        for block in self.blocks:
            h = block(h, tokens, self.squares, time)
        return self.last(self.norm(h)).float()

    def null_tokens(self) -> Tensor:
        """(T, W): stands for "no picture"."""
        return self.null.expand(self.sizes.side**2, -1)


def loss(
    model: Flow, image: Tensor, aux: Tensor, z: Tensor, copies: int, dropped: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Flow-matching loss with `copies` noises and times per picture, plus the auxiliary depth and normals.

    image (B, 4, 128, 128); aux (B, 4, 32, 32) in [−1, 1], −2 where nothing is seen; z (B, L, D) standardised.
    """
    b = image.shape[0]
    data = z.repeat_interleave(copies, dim=0)
    noise = torch.randn_like(data)
    t = torch.sigmoid(torch.randn(len(data)) * TIMES[1] + TIMES[0])
    x = torch.lerp(noise, data, t[:, None, None])
    with mixed():
        tokens = model.picture(image)
        maps = model.picture.maps(tokens).float()
        keep = torch.rand(b, 1, 1) >= dropped
        velocity = model(x, t, torch.where(keep, tokens, model.null.to(tokens.dtype)))
    error = (velocity - (data - noise)) ** 2
    seen = aux > -1.5
    side = ((maps - aux).abs() * seen).sum() / seen.sum().clamp(min=1)
    early = (error.mean((1, 2)) * (t < 0.1)).sum() / (t < 0.1).sum().clamp(min=1)
    return error.mean() + 0.5 * side, {"flow": error.mean().detach(), "early": early.detach(), "aux": side.detach()}
