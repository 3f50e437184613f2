"""What all trainings need around their step: the clock as schedule, an averaged copy, checkpoints, an orderly end."""

from __future__ import annotations

import copy
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.muon import Muon, split


class Leg:
    """One leg of training, as long as `minutes` of wall clock, resumable from `path`.

    The learning rate follows the leg's share of time: a short rise, a plateau, a fall to nothing over the last
    `fall`. SIGTERM and SIGINT end the leg after the current step with a checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        path: Path,
        minutes: float,
        hidden: tuple[str, ...],
        muon_rate: float,
        adam_rate: float,
        averaging: float = 0.998,
        fall: float = 0.45,
    ) -> None:
        self.model, self.path, self.seconds, self.fall = model, path, minutes * 60, fall
        muon, rest = split([(name, p) for name, p in model.named_parameters() if p.requires_grad], hidden)
        self.rates = (muon_rate, adam_rate)
        self.optimisers: list[torch.optim.Optimizer] = [
            Muon(muon, muon_rate),
            torch.optim.AdamW(rest, adam_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
        ]
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.averaging = averaging
        self.steps, self.spent, self.stop = 0, 0.0, False
        self.share = 0.0
        self.extra: dict[str, float] = {}  # numbers kept with the weights
        self.world, self.rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        if path.exists():
            self._load()
        self.began = self.saved = time.monotonic()
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, self._ask_to_stop)

    def _ask_to_stop(self, *_: Any) -> None:
        self.stop = True

    def _clock(self) -> float:
        return (self.spent + time.monotonic() - self.began) / self.seconds

    def _agree(self) -> None:
        """Averages gradients over the processes and takes rank 0's clock and anybody's wish to stop."""
        own = torch.tensor([self._clock() if self.rank == 0 else 0.0, float(self.stop)])
        if self.world > 1:
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in grads] + [own * self.world])
            dist.all_reduce(flat)
            flat /= self.world
            for g, mean in zip(grads, flat[:-2].split([g.numel() for g in grads]), strict=True):
                g.copy_(mean.view_as(g))
            own = flat[-2:]
        self.share, self.stop = float(own[0]), float(own[1]) > 0

    def running(self) -> bool:
        return not self.stop and self.share < 1

    def step(self, total: Tensor) -> None:
        """Backpropagates, clips, updates the weights and their average; saves every five minutes."""
        total.backward()
        self._agree()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rise = min(1.0, (self.steps + 1) / 60)
        factor = rise * max(0.0, min(1.0, (1 - self.share) / self.fall))
        for optimiser, rate in zip(self.optimisers, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.steps += 1
        keep = min(self.averaging, 1 - 1 / (1 + self.steps / 8))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)
        if self.rank == 0 and time.monotonic() - self.saved > 300:
            self.save()

    def save(self) -> None:
        if self.rank:
            return
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "steps": self.steps,
            "spent": self.spent + time.monotonic() - self.began,
            "extra": self.extra,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.rename(self.path)
        self.saved = time.monotonic()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.steps, self.spent = state["steps"], state["spent"]


def join() -> int:
    """Joins the other processes if RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set; this process's rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
        return dist.get_rank()
    return 0


class Report:
    """Tells of every n steps of a leg, on rank 0: how far it is, what a step took, the means of the losses.

    What it tells is kept as well, in a table beside the leg's checkpoint (`flow.csv` beside `flow.pt`), to which a leg
    that is taken up again adds: the curve of the training.
    """

    def __init__(self, leg: Leg, n: int) -> None:
        self.leg, self.n = leg, n
        self.kept: list[dict[str, float]] = []
        self.began = time.monotonic()

    def __call__(self, values: dict[str, Tensor], note: str = "") -> None:
        """Adds the losses of a step that was made; `note` is what else there is to tell just now."""
        self.kept.append({k: float(v) for k, v in values.items()})
        if len(self.kept) < self.n:
            return
        took = (time.monotonic() - self.began) / self.n
        means = {k: f"{sum(x[k] for x in self.kept) / self.n:.4f}" for k in self.kept[0]}
        self.kept.clear()
        self.began = time.monotonic()
        if self.leg.rank == 0:
            told = [f"{self.leg.share:.3f}", f"{took:.2f} s/step", *filter(None, [note])]
            print(self.leg.steps, *told, *(f"{k} {mean}" for k, mean in means.items()), flush=True)
            self._keep({"step": str(self.leg.steps), "share": told[0], "step_s": f"{took:.2f}", **means})

    def _keep(self, row: dict[str, str]) -> None:
        path = self.leg.path.with_suffix(".csv")
        begun = path.exists()
        with path.open("a") as file:
            if not begun:
                print(*row, sep=",", file=file)
            print(*row.values(), sep=",", file=file)
