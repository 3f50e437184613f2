"""The transformer pieces both networks share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fourier(nn.Module):
    """Points (..., K) → themselves, sines and cosines of π·2^i times them: (..., K·(1 + 2·bands))."""

    def __init__(self, bands: int, axes: int = 3) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(bands), persistent=False)
        self.size = axes * (1 + 2 * bands)

    def forward(self, p: Tensor) -> Tensor:
        a = (p[..., None] * self.frequencies).flatten(-2)
        return torch.cat([p, torch.sin(a), torch.cos(a)], dim=-1)


def heads(x: Tensor, count: int) -> Tensor:
    """(B, N, count·d) → (B, count, N, d)"""
    b, n, width = x.shape
    return x.view(b, n, count, width // count).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Softmax attention, written out: the fused CPU kernel's backward pass took a third of a whole training step."""
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    return torch.softmax(scores, dim=-1, dtype=scores.dtype) @ v


class Norm(nn.Module):
    """RMS normalisation in the input's own precision (torch's has no fused bfloat16 path with float32 weights)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():  # opset 18 has no RMS normalisation
            return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.weight
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), 1e-5)


class SelfAttention(nn.Module):
    """Multi-head attention with normalised queries and keys."""

    def __init__(self, width: int, head: int = 32) -> None:
        super().__init__()
        self.count = width // head
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = Norm(head), Norm(head)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(y, self.count) for y in self.qkv(x).chunk(3, dim=-1))
        return self.out(merge(attend(self.q_norm(q), self.k_norm(k), v)))


class Mlp(nn.Sequential):
    def __init__(self, width: int, ratio: float = 4) -> None:
        hidden = int(width * ratio)
        super().__init__(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


class Block(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, ratio: float = 4) -> None:
        super().__init__()
        self.norm1, self.attention = Norm(width), SelfAttention(width)
        self.norm2, self.mlp = Norm(width), Mlp(width, ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))
