"""Servers under load: ours, nginx, and the peers of `gateway_peers`; one process each, on the loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A server under load."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def resident(self) -> float:
        """MiB its process holds."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", text)
        assert found
        return int(found[1]) / 1024


# Starting and stopping.


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(name: str, command: list[str], port: int, ready: str, **environment: str) -> Iterator[Peer]:
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=HERE)
    try:
        until = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if get(port, ready)[0] < 500:
                    break
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{name} did not start")
            time.sleep(0.05)
        yield Peer(name, port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def meshkiln(folder: Path, **settings: str) -> contextlib.AbstractContextManager[Peer]:
    port = free_port()
    command = [sys.executable, "-c", "from meshkiln.cli import main; main()", "serve", "--port", str(port)]
    environment = {
        "MESHKILN_CACHE_DIR": str(folder / "cache"),
        "MESHKILN_DATA_DIR": str(folder / "data"),
        "MESHKILN_QUEUE_SECONDS": "1e6",
    }
    return running("meshkiln", command, port, "/readyz", **environment, **settings)


def nginx(folder: Path, files: Path) -> contextlib.AbstractContextManager[Peer] | None:
    found = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if found is None:
        return None
    port = free_port()
    configuration = folder / "nginx.conf"
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit; {user}\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; open_file_cache max=100;\n"
        f"{temporary}\nuwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; root {files}; }} }}\n"
    )
    return running("nginx", [found, "-c", str(configuration), "-p", str(folder)], port, "/small.bin")


def uvicorn_peer(name: str, files: Path) -> contextlib.AbstractContextManager[Peer]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"gateway_peers:{name}", "--port", str(port), "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "error"]
    return running(name, command, port, "/small.bin", PEER_FILES=str(files))


# Asking.


def get(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection_ = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection_.request("GET", path, headers=headers)
        response = connection_.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection_.close()


def post(port: int, picture: bytes, query: str = "wait=60", timeout: float = 120) -> dict[str, Any]:
    """A finished generation's document. timeout : seconds for an answer"""
    connection_ = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection_.request("POST", f"/v1/generations?{query}", picture, {"Content-Type": "image/png"})
        response = connection_.getresponse()
        document: dict[str, Any] = json.loads(response.read())
        while response.status == 202 and document["state"] in ("queued", "running") and "wait" in query:
            time.sleep(0.05)
            document = json.loads(get(port, document["links"]["self"])[2])
        return {"status": response.status, **document}
    finally:
        connection_.close()


def counts(port: int) -> dict[str, float]:
    text = get(port, "/metrics")[2].decode()

    def of(pattern: str) -> float:
        return sum(float(value) for value in re.findall(rf"^meshkiln_{pattern} (\S+)", text, re.M))

    return {
        "computed": of(r'stage_seconds_count\{stage="export"\}'),
        "stored": of(r'generation_seconds_count\{outcome="(?:memory|disk)"\}'),
        "joined": of(r'generation_seconds_count\{outcome="joined"\}'),
        "flights_joined": of("flights_joined_total"),
    }
