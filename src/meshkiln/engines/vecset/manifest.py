"""What the bundled weights are, from their small manifest: sizes and digests, without loading a graph."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from meshkiln.errors import MeshkilnError

FOLDER = Path(__file__).parent / "weights"


class NoWeights(MeshkilnError):
    """The weights are not where they belong."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Counts and digests that `training/INTERFACE.md` promises.

    latents, latent_dim : a latent set is (latents, latent_dim)
    tokens, token_dim : a picture becomes (tokens, token_dim)
    files : file name → BLAKE3 digest in hex
    """

    latents: int
    latent_dim: int
    tokens: int
    token_dim: int
    files: dict[str, str]

    def digest(self, *names: str) -> str:
        """The identity of some of the files together, for a stage's fingerprint; empty when there are none."""
        return "+".join(self.files[name][:32] for name in names) if self.files else ""


@cache
def manifest() -> Manifest:
    """The manifest beside the weights; one without files when they have not been made yet."""
    try:
        raw = json.loads((FOLDER / "manifest.json").read_text())
    except FileNotFoundError:
        return Manifest(0, 0, 0, 0, {})
    return Manifest(raw["latents"], raw["latent_dim"], raw["tokens"], raw["token_dim"], raw["files"])


def path(name: str) -> Path:
    """Where a file of the weights is. Raises NoWeights when it is missing."""
    file = FOLDER / name
    if not file.is_file():
        raise NoWeights(
            f"the engine vecset has no {name} in {FOLDER}: reinstall meshkiln, or make it with `make train`"
        )
    return file
