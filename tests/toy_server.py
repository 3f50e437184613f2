"""A toy gateway as a process of its own, for tests that kill it: `python tests/toy_server.py FOLDER PORT`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import toy
from meshkiln.engines.base import Work
from meshkiln.gateway.serve import run
from meshkiln.settings import Settings

SECONDS = 0.02
"""What `smooth` takes, so that there is something to kill."""


def dawdle(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    time.sleep(SECONDS * len(batch))
    return toy.smooth(batch)


def main(folder: str, port: int) -> None:
    stages = [replace(s, compute="toy_server:dawdle") if s.name == "smooth" else s for s in toy.ENGINE.stages]
    settings = Settings(
        port=port, engine="toy", workers=2, cache_dir=f"{folder}/cache", data_dir=f"{folder}/data", shutdown_seconds=1.0
    )
    run(settings, {"toy": replace(toy.ENGINE, stages=tuple(stages))})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
