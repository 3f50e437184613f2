"""Averaged weights as half-precision arrays: all that a further leg of training needs to start from.

python -m training.state RUN training/state        # writes autoencoder.npz, flow.npz; student.npz, patches.npz if there

Beside each the curve of the leg that ended in it, where the run kept one (`flow.csv`; see `loop.Report`).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


def save(checkpoint: Path, path: Path) -> None:
    """The averaged weights of a training checkpoint, as float16, with the steps and hours behind them."""
    state = torch.load(checkpoint, weights_only=True)
    arrays = {name: value.numpy().astype(np.float16) for name, value in state["average"].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays, **{"#steps": np.int64(state["steps"]), "#hours": np.float64(state["spent"] / 3600)})


def load(model: nn.Module, path: Path) -> None:
    """Fills a model from what `save` wrote, or from the averaged weights of a checkpoint (.pt)."""
    if path.suffix == ".pt":
        model.load_state_dict(torch.load(path, weights_only=True)["average"])
        return
    with np.load(path) as arrays:
        model.load_state_dict(
            {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files if name[0] != "#"}
        )


if __name__ == "__main__":
    for name in ("autoencoder", "flow", "student", "patches"):
        if name in ("student", "patches") and not (Path(sys.argv[1]) / "student.pt").exists():
            continue
        save(Path(sys.argv[1]) / f"{name}.pt", Path(sys.argv[2]) / f"{name}.npz")
        curve = Path(sys.argv[1]) / f"{name}.csv"
        if curve.exists():
            shutil.copyfile(curve, Path(sys.argv[2]) / curve.name)
