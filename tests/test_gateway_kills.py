"""Workers and servers killed under load: what was accepted is done, and done once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from meshkiln.keys import digest
from serving import until

PNG = {"content-type": "image/png"}
HERE = Path(__file__).parent


class Victim:
    """A server process that comes back on the same port and folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, verify=False)
        self.start()

    def start(self) -> None:
        path = f"import sys; sys.path[:0] = {[str(HERE), *filter(None, sys.path)]!r}; import toy_server; "
        command = [sys.executable, "-c", f"{path}toy_server.main({str(self.folder)!r}, {self.port})"]
        self.process = subprocess.Popen(command)
        try:
            until(self.ready)
        except BaseException:
            self.process.kill()  # else it would outlive the test that gave it up
            raise

    def ready(self) -> bool:
        assert self.process.poll() is None, "the server did not start"
        with contextlib.suppress(httpx.HTTPError):
            return self.http.get("/readyz").status_code == 200
        return False

    def workers(self) -> list[int]:
        children: list[int] = []
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
        return children

    def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


class Load:
    """Clients that post new pictures until told to stop, and keep what they were promised."""

    def __init__(self, url: str, clients: int = 3) -> None:
        self.url = url
        self.accepted: list[str] = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.post, args=(client,)) for client in range(clients)]

    def post(self, client: int) -> None:
        number = 0
        with httpx.Client(base_url=self.url, timeout=20) as http:
            while not self.stopped.is_set():
                number += 1
                picture = f"{client}-{number}".encode()
                with contextlib.suppress(httpx.HTTPError):
                    answer = http.post("/v1/generations?steps=2", content=picture, headers=PNG)
                    if answer.status_code == 202:
                        self.accepted.append(answer.headers["location"])
                self.stopped.wait(0.02)

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@contextlib.contextmanager
def victim(folder: Path) -> Iterator[Victim]:
    made = Victim(folder)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        made.http.close()


def settle(url: str, accepted: list[str]) -> dict[str, int]:
    """How the accepted jobs ended, each checked."""
    ends: dict[str, int] = {}
    with httpx.Client(base_url=url, timeout=30) as http:
        for location in accepted:
            until(lambda location=location: http.get(location).json()["state"] in ("succeeded", "failed"), 120)
            job = http.get(location).json()
            ends[job["state"]] = ends.get(job["state"], 0) + 1
            if job["state"] == "failed":
                assert job["error"]["title"], job
                assert job["error"]["detail"], job
                continue
            artifact = http.get(job["links"]["artifact"])
            assert digest(artifact.content).hex() == job["digest"] == artifact.headers["etag"].strip('"')
    return ends


def kill_at_random(folder: Path, kills: int, seed: int) -> None:
    choice = random.Random(seed)
    with victim(folder) as server:
        with Load(server.url) as load:
            for number in range(kills):
                seen = len(load.accepted)
                until(lambda seen=seen: len(load.accepted) > seen)
                time.sleep(choice.uniform(0, 0.1))  # any moment will do: that is the point
                workers = server.workers()
                if number % 4 == 3 or not workers:
                    server.stop(signal.SIGKILL)
                    server.start()
                else:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(choice.choice(workers), signal.SIGKILL)
        assert len(load.accepted) >= kills
        ends = settle(server.url, load.accepted)
        assert ends.get("succeeded", 0) > len(load.accepted) * 0.8, ends


def test_what_was_accepted_survives_killed_workers_and_servers(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 8, 1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_and_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 120, 2)


def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    with victim(tmp_path) as server:
        with Load(server.url) as load:
            until(lambda: len(load.accepted) > 30)
            waiting = httpx.Client(timeout=30)
            stream = waiting.stream("GET", server.url + load.accepted[-1] + "/events")
            with stream as events:
                started = time.monotonic()
                assert server.stop(signal.SIGTERM) == 0
                assert time.monotonic() - started < 1.0 + 10
                assert events.read() is not None  # let go, not cut off
        server.start()
        assert settle(server.url, load.accepted) == {"succeeded": len(load.accepted)}


# Clients.
