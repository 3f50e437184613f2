"""Stored answers over HTTP beside nginx, plain FastAPI and a bare callable; 72 requests over 30 pictures; memory.

    python benchmarks/gateway.py [--short]

This is the benchmark of HTTP; a module called `http` would stand in front of the standard library's. Needs wrk (the
load generator) and nginx (a peer), both Debian packages; what is missing is said, and its bars are left unmeasured.
Every server has one worker on the loopback, and shares the cores with the load. Cases are interleaved between servers
in rounds; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from blobs import padded, picture
from meshkiln.gateway import artifacts, connection, hosts, hotpath, serve, service, uploads
from meshkiln.keys import Key, digest
from meshkiln.store.base import Artifact
from meshkiln.store.disk import Disk
from results_file import Bar, Results
from servers import Peer, counts, get, meshkiln, nginx, post, uvicorn_peer
from wrk import Load, ratios, table

SIZES = {"small": 1024, "64k": 64 * 2**10, "2m": 2 * 2**20}


def stored_artifacts(folder: Path, load: Load, rounds: int) -> dict[str, Any]:
    files = folder / "files"
    files.mkdir()
    store = Disk(folder / "cache")
    random = np.random.default_rng(0)
    keys = {}
    for name, size in SIZES.items():
        data = random.bytes(size)
        (files / f"{name}.bin").write_bytes(data)
        keys[name] = Key(digest(name.encode()))
        store.put(
            keys[name], Artifact.of(data, 1.0, "model/gltf-binary", {"stage": "export", "costs": {"export": 1.0}})
        )
    store.close()
    told: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(meshkiln(folder)), stack.enter_context(uvicorn_peer("plain", files))]
        static = nginx(folder, files)
        if static is None:
            print("nginx is not installed (Debian: nginx-light): bars against it are left unmeasured")
        else:
            peers.append(stack.enter_context(static))

        def path(peer: Peer, name: str) -> str:
            return f"/v1/artifacts/{keys[name].hex()}" if peer.name == "meshkiln" else f"/{name}.bin"

        cases: dict[str, Callable[[Peer], dict[str, float]]] = {
            name: lambda peer, name=name: load(peer.port, path(peer, name))  # type: ignore[misc]
            for name in SIZES
        }
        etags = {peer.name: get(peer.port, path(peer, "small"))[1].get("etag") for peer in peers}
        cases["304"] = lambda peer: load(
            peer.port, path(peer, "small"), headers={"If-None-Match": etags[peer.name] or '"none"'}
        )
        for case, run in cases.items():
            measured = [{peer.name: run(peer) for peer in peers} for _ in range(rounds)]
            told[case] = table(case, measured)
            told[case]["of_nginx"] = ratios(measured, "meshkiln", "nginx") if static else None
            told[case]["of_plain"] = ratios(measured, "meshkiln", "plain")
    return told


def uploads_of_100k(folder: Path, load: Load, rounds: int) -> dict[str, Any]:
    files = folder / "files"
    data = padded(picture(1, 160, noise=True), 100 * 1024)
    body, form, encoded = files / "picture.png", files / "form", files / "json"
    body.write_bytes(data)
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    form.write_bytes(head + data + b"\r\n--x--\r\n")
    encoded.write_text(json.dumps({"image": base64.b64encode(data).decode()}))
    with meshkiln(folder) as ours, uvicorn_peer("bare", files) as bare:
        for _ in range(3):
            document = post(ours.port, data)
            assert document["state"] == "succeeded", document
        png = {"Content-Type": "image/png"}
        multipart = {"Content-Type": "multipart/form-data; boundary=x"}
        where = "/v1/generations"
        as_json = {"Content-Type": "application/json"}
        measured = [
            {
                "meshkiln": load(ours.port, where, method="POST", headers=png, body=body),
                "bare": load(bare.port, "/", method="POST", headers=png, body=body),
                "multipart": load(ours.port, where, method="POST", headers=multipart, body=form),
                "json": load(ours.port, where, method="POST", headers=as_json, body=encoded),
            }
            for _ in range(rounds)
        ]
        told = table("POST 100 KiB", measured)
        told["of_bare"] = ratios(measured, "meshkiln", "bare")
    return told


def while_generating(folder: Path, load: Load, rounds: int) -> dict[str, Any]:
    """Latencies of stored answers while every worker is busy."""
    with meshkiln(folder) as ours:
        where = f"/v1/artifacts/{digest(b'small').hex()}"
        get(ours.port, where)
        stop = threading.Event()

        def feed() -> None:
            number = 1000
            while not stop.is_set():
                if json.loads(get(ours.port, "/v1/generations?state=queued&limit=1")[2])["generations"]:
                    stop.wait(0.2)
                    continue
                for _ in range(10):
                    number += 1
                    post(ours.port, picture(number, 128), "")

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            time.sleep(3)
            measured = [
                {
                    "32 at once": load(ours.port, where),
                    "640 a second": load(ours.port, where, pause=50),
                }
                for _ in range(rounds)
            ]
            busy = re.findall(r"worker_busy_ratio\S+ (\S+)", get(ours.port, "/metrics")[2].decode())
        finally:
            stop.set()
            feeder.join()
        return {**table("while generating", measured), "busy": [round(float(share), 2) for share in busy]}


def workload(folder: Path) -> dict[str, Any]:
    """30 distinct pictures, the first 21 asked three times, 32 at once: cold, then warm."""
    distinct = [picture(100 + number, 128) for number in range(30)]
    asked = distinct + distinct[:21] + distinct[:21]
    told: dict[str, Any] = {}
    with meshkiln(folder) as ours, ThreadPoolExecutor(32) as clients:
        for name in ("cold", "warm"):
            before = counts(ours.port)
            started = time.perf_counter()
            documents = list(clients.map(lambda data: post(ours.port, data), asked))
            seconds = time.perf_counter() - started
            assert all(document["state"] == "succeeded" for document in documents)
            after = counts(ours.port)
            told[name] = {
                "seconds": round(seconds, 3),
                "requests_per_second": round(len(asked) / seconds, 2),
                **{what: after[what] - before[what] for what in after},
            }
            told[name]["without"] = told[name]["stored"] + told[name]["joined"]
            print(f"72 requests, {name}: {told[name]}", flush=True)
    return told


def memory(folder: Path, load: Load, answers: int, posts: int) -> dict[str, Any]:
    """Growth of the server's memory over stored answers and uploads, each after a tenth of them to warm up.

    In a folder of its own: jobs that an earlier part left behind would fill the store's memory meanwhile.
    """
    alone = folder / "memory"
    key = Key(digest(b"small"))
    with contextlib.closing(Disk(alone / "cache")) as store:
        data = bytes(SIZES["small"])
        store.put(key, Artifact.of(data, 1.0, "model/gltf-binary", {"stage": "export", "costs": {"export": 1.0}}))
    body = folder / "files" / "picture.png"
    body.write_bytes(padded(picture(1, 160, noise=True), 100 * 1024))
    where = f"/v1/artifacts/{key.hex()}"
    told: dict[str, Any] = {}
    with meshkiln(alone) as ours:
        post(ours.port, body.read_bytes())

        def some(count: int, path: str, **asked: Any) -> float:
            done = 0.0
            while done < count:
                done += load(ours.port, path, **asked)["requests"]
            return ours.resident()

        png = {"method": "POST", "headers": {"Content-Type": "image/png"}, "body": body}
        for name, count, asked in (("answers", answers, {}), ("uploads", posts, png)):
            path = where if name == "answers" else "/v1/generations"
            before = some(count // 10, path, **asked)
            after = some(count, path, **asked)
            told[name] = {"count": count, "mib": [round(before, 1), round(after, 1)], "growth": after / before - 1}
            print(f"memory over {count} {name}: {before:.1f} MiB, then {after:.1f} MiB", flush=True)
    return told


def bars(told: Mapping[str, Any]) -> list[Bar]:
    files, posts, busy = told["artifacts"], told["uploads"], told["while generating"]
    given = []
    for case, words, of_nginx in (
        ("small", "stored answer of 1 KiB", 0.5),
        ("304", "304", 0.5),
        ("64k", "artifact of 64 KiB", 0.6),
        ("2m", "artifact of 2 MiB", 0.6),
    ):
        if files[case]["of_nginx"] is not None:
            given.append(Bar(f"{words}, of nginx", files[case]["of_nginx"], of_nginx, ">="))
        if case in ("small", "304"):
            all_the_same = ", which sends the file all the same" if case == "304" else ""
            given.append(Bar(f"{words}, of plain FastAPI{all_the_same}", files[case]["of_plain"], 2.5, ">="))
    given += [
        Bar("stored answer of 1 KiB, p99 at 32 connections", files["small"]["meshkiln"]["p99"], 5.0, unit=" ms"),
        Bar("POST of 100 KiB, of reading and hashing it", posts["of_bare"], 0.7, ">="),
        Bar("POST of 100 KiB, p99 at 32 connections", posts["meshkiln"]["p99"], 10.0, unit=" ms"),
        Bar("stored answer while generating, p99, 32 at once", busy["32 at once"]["p99"], 25.0, unit=" ms"),
        Bar("stored answer while generating, p99, 640 a second", busy["640 a second"]["p99"], 25.0, unit=" ms"),
        Bar("72 requests: generations", told["workload"]["cold"]["computed"], 30, "<="),
        Bar("72 requests: answered without one", told["workload"]["cold"]["without"], 42, ">="),
        Bar("memory growth over stored answers", told["memory"]["answers"]["growth"], 0.05),
        Bar("memory growth over uploads", told["memory"]["uploads"]["growth"], 0.05),
    ]
    return given


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    given.add_argument("--short", action="store_true", help="fewer, shorter runs; leaves no results file")
    given.add_argument("--only", help="one measurement: artifacts, uploads, generating, workload or memory")
    options = given.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed (Debian: wrk): nothing can be measured without a load generator")
    rounds, seconds = (3, 1.0) if options.short else (7, 3.0)
    scale = 10 if options.short else 1
    modules = (artifacts, connection, hosts, hotpath, serve, service, uploads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "generating").mkdir()
        load = Load(folder, seconds)
        measurements: dict[str, Callable[[], Any]] = {
            "artifacts": lambda: stored_artifacts(folder, load, rounds),
            "uploads": lambda: uploads_of_100k(folder, load, rounds),
            "while generating": lambda: while_generating(folder, load, rounds),
            "workload": lambda: workload(folder / "generating"),
            "memory": lambda: memory(folder, load, 10**6 // scale, 10**4 // scale),
        }
        if options.only:
            chosen = [name for name in measurements if options.only in name]
            # The files that later measurements use are made by the first.
            if not {"artifacts", "workload"} & set(chosen):
                stored_artifacts(folder, Load(folder, 0.1), 1)
            for name in chosen:
                print(json.dumps(measurements[name](), indent=1))
            return 0
        if options.short:
            told = {name: measure() for name, measure in measurements.items()}
            for bar in bars(told):
                verdict = "met  " if bar.met else "SHORT"
                print(f"{verdict}  {bar.name}: {bar.value:.4g}{bar.unit} (bar: {bar.op} {bar.target:g}{bar.unit})")
            return 0
        results = Results(
            "gateway",
            packages=["uvicorn", "uvloop", "httptools", "fastapi"],
            sources=[str(m.__file__) for m in modules],
        )
        told = {name: results.item(name, measure) for name, measure in measurements.items()}
        met = results.finish(
            told,
            bars(told),
            [
                "rates in requests a second, latencies in milliseconds; wrk, one thread, 32 connections",
                "ratios are medians of ratios within a round; servers take turns within each round",
                "nginx: one worker, sendfile, open file cache, no access log; every other server one process",
                "while generating: every worker is busy with generations that were asked for over HTTP",
            ],
        )
        return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
