"""The shape autoencoder: surface points → a set of latents → an occupancy field.

3DShape2VecSet (Zhang et al. 2023, arXiv 2301.11445) with one change: every latent has a home, an anchor on a fixed
5 × 5 × 4 grid in the frame, and both cross-attentions carry a learned bias −β·|point − anchor|². The set stays a set
(any latent may say anything), but which latent speaks for which region is known from the first step on, and
the flow, whose picture tokens live in the same x and y, has less to find out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.layers import Block, Fourier, Norm, attend, heads, merge

GEOMETRY = 4
"""Dimensions of each head that carry the distance bias: −β|p−a|² is a dot product of (p, |p|²) and (2βa, −β)."""


@dataclass(frozen=True)
class Sizes:
    grid: tuple[int, int, int] = (5, 5, 4)
    latent_dim: int = 16
    width: int = 128
    trunk: int = 192
    encoder_layers: int = 2
    decoder_layers: int = 6
    head: int = 32
    bands: int = 7

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def anchors(grid: tuple[int, int, int]) -> Tensor:
    """(L, 3): where the latents live."""
    axes = [torch.linspace(-e, e, n) for e, n in zip((0.64, 0.64, 0.6), grid, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


class Autoencoder(nn.Module):
    def __init__(self, sizes: Sizes = Sizes()) -> None:
        super().__init__()
        s, w, t = sizes, sizes.width, sizes.trunk
        self.sizes = s
        self.count = w // s.head
        content = self.count * (s.head - GEOMETRY)
        self.register_buffer("anchors", anchors(s.grid), persistent=False)
        self.fourier = Fourier(s.bands)
        self.log_beta_in = nn.Parameter(torch.log(torch.tensor([2.0, 6.0, 12.0, 24.0])[: self.count]))
        self.log_beta_out = nn.Parameter(torch.log(torch.tensor([2.0, 6.0, 12.0, 24.0])[: self.count]))

        self.point_in = nn.Linear(self.fourier.size + 3, w)
        self.point_mlp = nn.Sequential(nn.GELU(approximate="tanh"), nn.Linear(w, w))
        self.point_norm = Norm(w)
        self.seed = nn.Parameter(torch.randn(len(self.anchors), t) * 0.02)
        self.anchor_in = nn.Linear(self.fourier.size, t)
        self.encoder_q = nn.Linear(t, content, bias=False)
        self.encoder_k = nn.Linear(w, content, bias=False)
        self.encoder_v = nn.Linear(w, w, bias=False)
        self.encoder_out = nn.Linear(w, t, bias=False)
        self.encoder = nn.Sequential(*(Block(t) for _ in range(s.encoder_layers)))
        self.encoder_norm = Norm(t)
        self.to_latent = nn.Linear(t, 2 * s.latent_dim)

        self.from_latent = nn.Linear(s.latent_dim, t)
        self.place = nn.Linear(self.fourier.size, t)
        self.decoder = nn.Sequential(*(Block(t) for _ in range(s.decoder_layers)))
        self.decoder_norm = Norm(t)
        self.decoder_k = nn.Linear(t, content, bias=False)
        self.decoder_v = nn.Linear(t, w, bias=False)

        self.query_in = nn.Linear(self.fourier.size, w)
        self.query_q = nn.Linear(w, content, bias=False)
        self.query_out = nn.Linear(w, w, bias=False)
        self.query_norm = Norm(w)
        self.query_mlp = nn.Sequential(nn.Linear(w, 3 * w), nn.GELU(approximate="tanh"), nn.Linear(3 * w, w))
        self.query_last = nn.Sequential(Norm(w), nn.Linear(w, 1))

        # Latents leave and enter standardised; set once, after training (see train_autoencoder.standardise).
        self.register_buffer("latent_mean", torch.zeros(s.latent_dim))
        self.register_buffer("latent_std", torch.ones(s.latent_dim))

    def encode(self, surface: Tensor) -> tuple[Tensor, Tensor]:
        """surface (B, M, 6) points and normals → mean and log-variance (B, L, D), not standardised."""
        b, m = surface.shape[:2]
        p = surface[..., :3]
        x = self.point_in(torch.cat([self.fourier(p), surface[..., 3:]], dim=-1))
        x = self.point_norm(x + self.point_mlp(x))
        seeds = self.seed + self.anchor_in(self.fourier(self.anchors))
        scale = (self.sizes.head - GEOMETRY) ** -0.5
        q = heads(self.encoder_q(seeds)[None] * scale, self.count)
        beta = self.log_beta_in.exp()[None, :, None, None]
        a = self.anchors[None, None]
        q = torch.cat([q, (2 * beta * a).to(q.dtype), -beta.expand(1, self.count, a.shape[2], 1).to(q.dtype)], dim=-1)
        k = heads(self.encoder_k(x), self.count)
        place = torch.cat([p, (p * p).sum(-1, keepdim=True)], dim=-1)[:, None].expand(b, self.count, m, 4)
        k = torch.cat([k, place.to(k.dtype)], dim=-1)
        v = heads(self.encoder_v(x), self.count)
        y = attend(q.expand(b, -1, -1, -1), k, v, scale=1.0)
        z = self.encoder(seeds[None] + self.encoder_out(merge(y)))
        mean, log_variance = self.to_latent(self.encoder_norm(z)).float().chunk(2, dim=-1)
        return mean, log_variance.clamp(-12, 4)

    def features(self, z: Tensor) -> Tensor:
        """Latents (B, L, D), not standardised → keys and values of the query attention (B, L, 2·width)."""
        x = self.from_latent(z) + self.place(self.fourier(self.anchors))
        x = self.decoder_norm(self.decoder(x))
        k = heads(self.decoder_k(x), self.count)
        beta = self.log_beta_out.exp()[None, :, None, None]
        a = self.anchors[None, None].expand(k.shape[0], self.count, -1, 3)
        bias = torch.cat([2 * beta * a, -beta * (a * a).sum(-1, keepdim=True)], dim=-1)
        k = torch.cat([k, bias.to(k.dtype)], dim=-1)
        return torch.cat([merge(k), self.decoder_v(x)], dim=-1)

    def freeze_encoder(self) -> None:
        """From now on only the decoder learns: latents stay what a flow has learnt to make."""
        makes = (self.point_in, self.point_mlp, self.point_norm, self.anchor_in, self.encoder, self.to_latent)
        for part in (*makes, self.encoder_q, self.encoder_k, self.encoder_v, self.encoder_out, self.encoder_norm):
            part.requires_grad_(False)
        self.seed.requires_grad_(False)
        self.log_beta_in.requires_grad_(False)

    def query(self, features: Tensor, points: Tensor) -> Tensor:
        """features (B, L, 2·width), points (B, N, 3) → logits (B, N), positive inside."""
        k, v = (heads(y, self.count) for y in features.split(self.sizes.width, dim=-1))
        x = self.query_in(self.fourier(points))
        q = heads(self.query_q(x) * (self.sizes.head - GEOMETRY) ** -0.5, self.count)
        one = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)[:, None].expand(-1, self.count, -1, -1)
        q = torch.cat([q, one.to(q.dtype)], dim=-1)
        x = x + self.query_out(merge(attend(q, k, v, scale=1.0)))
        x = x + self.query_mlp(self.query_norm(x))
        return self.query_last(x)[..., 0].float()

    def forward(self, surface: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(surface)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        return self.query(self.features(z), points), mean, log_variance


SHARPNESS = 60.0
"""Slope of the soft occupancy: logit ≈ −60 · signed distance near the surface."""


def loss(
    logits: Tensor, distance: Tensor, mean: Tensor, log_variance: Tensor, kl: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy against σ(−60·distance), and the KL divergence to a unit normal, per latent number.

    logits, distance : (B, N), the first half near the surface, the second in the volume.
    """
    target = torch.sigmoid(-SHARPNESS * distance)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    near, volume = entropy.chunk(2, dim=1)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    total = near.mean() + volume.mean() + kl * divergence
    with torch.no_grad():
        inside, truth = logits.chunk(2, dim=1)[1] > 0, distance.chunk(2, dim=1)[1] < 0
        iou = ((inside & truth).sum(1) / (inside | truth).sum(1).clamp(min=1)).mean()
    return total, {
        "near": near.mean().detach(),
        "volume": volume.mean().detach(),
        "kl": divergence.detach(),
        "iou": iou,
    }
