"""The load: wrk, run against one URL after another, and what it measured."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCRIPT = """
wrk.method = "%s"
%s
local paused = %d
if paused > 0 then function delay() return math.random(0, 2 * paused) end end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\nFIGURES {"rate": %%f, "p50": %%f, "p99": %%f, "most": %%f, "errors": %%d, "requests": %%d}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout, summary.requests))
end
"""


class Load:
    """wrk against one URL after another. seconds : of each run"""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def __call__(
        self,
        port: int,
        path: str,
        connections: int = 32,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: Path | None = None,
        pause: int = 0,
        seconds: float | None = None,
    ) -> dict[str, float]:
        lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in (headers or {}).items()]
        if body is not None:
            lines.append(f'local file = io.open("{body}", "rb"); wrk.body = file:read("*all"); file:close()')
        script = self.folder / "load.lua"
        script.write_text(SCRIPT % (method, "\n".join(lines), pause))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds or self.seconds))}s", "--timeout", "30s"]
        command += ["-s", str(script), f"http://127.0.0.1:{port}{path}"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        figures: dict[str, float] = json.loads(out.split("FIGURES ", 1)[1].splitlines()[0])
        # Refusals are quick: a rate with errors in it is not one of answers.
        if figures["errors"] or not figures["requests"]:
            sys.exit(f"{int(figures['errors'])} errors among {int(figures['requests'])} requests of {path}")
        return figures


def ratios(rounds: list[dict[str, dict[str, float]]], one: str, other: str) -> float:
    return statistics.median(r[one]["rate"] / r[other]["rate"] for r in rounds)


def figure(rounds: list[dict[str, dict[str, float]]], server: str, name: str) -> float:
    return round(statistics.median(r[server][name] for r in rounds), 3)


def table(title: str, rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    told = {
        server: {name: figure(rounds, server, name) for name in ("rate", "p50", "p99", "most")} for server in rounds[0]
    }
    for server, row in told.items():
        print(f"{title:24} {server:14} {row['rate']:10.0f}/s  p50 {row['p50']:8.2f} ms  p99 {row['p99']:8.2f} ms")
    sys.stdout.flush()
    return told
