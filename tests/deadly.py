"""A `smooth` of the toy engine that one picture kills, as some pictures kill decoders. Run by workers.

It is slow to load, as models are.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

import numpy as np

import toy
from meshkiln.engines.base import Work


def warm() -> None:
    time.sleep(1.0)


def smooth(batch: Sequence[Work]) -> list[dict[str, np.ndarray]]:
    if any(bytes(work.inputs[0]["pixels"]) == b"deadly" for work in batch):
        os.kill(os.getpid(), signal.SIGKILL)
    return toy.smooth(batch)
