"""What a run tells while it is in the kiln, to all who follow one of its jobs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from meshkiln.gateway import previews
from meshkiln.gateway.events import Logs
from meshkiln.gateway.runs import Run
from meshkiln.request import Link
from meshkiln.result import Made, report_of


class Progress:
    """The teller of one run, called from whichever thread computes; what it tells is told on the event loop."""

    def __init__(self, run: Run, logs: Logs, loop: asyncio.AbstractEventLoop) -> None:
        self.run = run
        self.logs = logs
        self.loop = loop

    def report(self, stage: str, step: int, steps: int) -> None:
        """`stage` has begun (step 0), or finished `step` of `steps`."""
        if step:
            self._soon("step", {"stage": stage, "step": step, "steps": steps})
        else:
            self._soon("stage", {"stage": stage, "state": "begun"})

    def told(self, link: Link, made: Made) -> None:
        """A stage's output is in hand, found or computed."""
        report = report_of(link, made)
        data: dict[str, Any] = {**report.as_json(), "state": "done"}
        if link.stage.preview is not None and report.key is not None:
            data["preview"] = previews.link(report.key.hex())
        self._soon("stage", data)

    def _soon(self, kind: str, data: dict[str, Any]) -> None:
        # A thread that computes may outlive the loop.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._tell, kind, data)

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "stage":
            self.run.tell(data, self.loop.time())
        self.run.step = data if kind == "step" else None
        for id in self.run.jobs:
            self.logs.tell(id, kind, data)
