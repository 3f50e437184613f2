"""What telemetry costs a stored answer: the same requests, the setting `telemetry` on and off, taking turns.

    python benchmarks/telemetry.py [--short]

Needs wrk (Debian package). Two servers over copies of one store are asked the same, one after the other, in an order
that alternates; each turn gives the processor seconds that its server spent on each answer, which other load on the
machine disturbs less than a rate. The figure is the median of the ratios of neighbouring turns. A server with
`telemetry` off still serves and is asked for nothing else; what it does not do is count, time, and keep a history.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from blobs import picture
from meshkiln.gateway import connection, exposition, hotpath, metrics, requests, watch
from meshkiln.keys import Key, digest
from meshkiln.store.base import Artifact
from meshkiln.store.disk import Disk
from meshkiln.telemetry import history, tally
from results_file import Bar, Results
from servers import Peer, get, meshkiln, post
from wrk import Load

MOST = 1.05
"""The bar: processor time of an answer with telemetry, as a share of one without."""
ROUNDS = 45
"""Turns of each server and case: with neighbours at work a ratio of two turns may be a tenth off, or more."""


def spent(peer: Peer) -> float:
    """Processor seconds the server has used so far."""
    fields = Path(f"/proc/{peer.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def turn(peer: Peer, load: Load, case: dict[str, Any]) -> float:
    """Microseconds of processor time for each answer of one run of the load."""
    before = spent(peer)
    figures = load(peer.port, **case)
    return (spent(peer) - before) / figures["requests"] * 1e6


def measure(folder: Path, load: Load, rounds: int) -> dict[str, Any]:
    """Cost of each kind of stored answer with telemetry on and off, turn by turn."""
    key = Key(digest(b"stored"))
    body = folder / "picture.png"
    body.write_bytes(picture(1, 160, noise=True))
    told: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        peers = {}
        for name, value in (("on", "true"), ("off", "false")):
            (folder / name).mkdir()
            store = Disk(folder / name / "cache")
            provenance: dict[str, Any] = {"stage": "export", "costs": {"export": 1.0}}
            store.put(key, Artifact.of(os.urandom(1024), 1.0, "model/gltf-binary", provenance))
            store.close()
            peers[name] = stack.enter_context(meshkiln(folder / name, MESHKILN_TELEMETRY=value))
            for _ in range(2):
                document = post(peers[name].port, body.read_bytes())
                assert document["state"] == "succeeded", document
            get(peers[name].port, f"/v1/artifacts/{key.hex()}")
        cases: dict[str, dict[str, Any]] = {
            "artifact": {"path": f"/v1/artifacts/{key.hex()}"},
            "generation": {
                "path": "/v1/generations",
                "method": "POST",
                "headers": {"Content-Type": "image/png"},
                "body": body,
            },
        }
        for case, asked in cases.items():
            for peer in peers.values():
                turn(peer, load, asked)  # warm
            on, off = [], []
            for number in range(rounds):
                for name in ("on", "off") if number % 2 else ("off", "on"):
                    (on if name == "on" else off).append(turn(peers[name], load, asked))
            told[case] = {
                "on_us": round(statistics.median(on), 3),
                "off_us": round(statistics.median(off), 3),
                "ratio": round(statistics.median(a / b for a, b in zip(on, off, strict=True)), 4),
                "ratios": [round(a / b, 4) for a, b in zip(on, off, strict=True)],
            }
            print(
                f"{case:12} on {told[case]['on_us']} µs, off {told[case]['off_us']} µs: {told[case]['ratio']}",
                flush=True,
            )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="few and short turns; writes no results")
    short = parser.parse_args().short
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = Load(folder, 2)
        if short:
            measure(folder, load, 3)
            return
        sources = [m.__file__ for m in (connection, exposition, hotpath, metrics, requests, watch, history, tally)]
        results = Results("telemetry", ("prometheus-client", "uvicorn"), [s for s in sources if s])
        figures = results.item("stored answers", lambda: measure(folder, load, ROUNDS))
        met = results.finish(
            figures,
            [
                Bar("telemetry's cost of a stored artifact, by processor time", figures["artifact"]["ratio"], MOST),
                Bar("telemetry's cost of a stored generation, by processor time", figures["generation"]["ratio"], MOST),
            ],
            [
                "Two servers, one with the setting telemetry off, asked in turns; median of the ratios of neighbours.",
                "Processor time of the gateway's process, its history's samples included; wrk shares the machine.",
            ],
        )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
