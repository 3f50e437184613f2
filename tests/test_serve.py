"""`meshkiln serve` as a person starts it: how soon, where it listens, and what its own process never touches."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import pictures
from meshkiln.cli.serve import say_where
from meshkiln.settings import Settings
from serving import until
from test_workers_kiln import disc

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux about the process")

READY_SECONDS = 2.0
FOREIGN = ("PIL", "numpy", "cv2", "scipy", "skimage", "trimesh", "onnxruntime")
"""Whatever decodes pictures or computes: libraries that the process which listens must not have loaded."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    folder = tmp_path_factory.mktemp("serve")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MESHKILN_")},
        "MESHKILN_CACHE_DIR": str(folder / "cache"),
        "MESHKILN_DATA_DIR": str(folder / "data"),
        "MESHKILN_WORKERS": "1",
    }
    command = [sys.executable, "-c", "from meshkiln.cli import main; main()", "serve", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0
        finally:
            process.kill()


def listening(process: subprocess.Popen[bytes]) -> list[tuple[str, int]]:
    """Addresses (hexadecimal, as the kernel writes them) and ports that a process listens on."""
    files = Path(f"/proc/{process.pid}/fd").iterdir()
    sockets = {os.readlink(file) for file in files if file.exists() or file.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


def processor_seconds(pid: int) -> float:
    """What a process and its children have computed so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    pids = [pid, *(int(child) for task in tasks for child in (task / "children").read_text().split())]
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def test_what_is_served_where_when_nothing_is_said() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.engine) == ("127.0.0.1", 8081, "inflate")
    assert settings.body_bytes == 20 * 10**6
    assert settings.memory
    assert settings.disk


def test_it_is_ready_soon_and_listens_on_loopback_alone(server: subprocess.Popen[bytes]) -> None:
    until(lambda: server.poll() is None and bool(listening(server)))
    ((address, port),) = listening(server)
    assert address == "0100007F"
    assert server.stdout is not None
    assert f"Open http://127.0.0.1:{port} in a browser" in server.stdout.readline().decode(), "the port that it bound"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        until(lambda: http.get("/readyz").status_code == 200)
    # All that it takes, one after the other: on a machine that has nothing else to do, seconds by the clock are fewer.
    assert processor_seconds(server.pid) <= READY_SECONDS


def test_its_process_never_loads_what_decodes_or_computes(server: subprocess.Popen[bytes]) -> None:
    ((_, port),) = listening(server)
    picture = pictures.file(disc(96, 30, alpha=False))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=100) as http:
        document = http.post("/v1/generations?wait=60", content=picture, headers={"content-type": "image/png"}).json()
        assert document["state"] == "succeeded", document
        for link in (*document["links"]["formats"].values(), *document["links"]["previews"].values()):
            assert http.get(link).status_code == 200, link
        asked = {"image": base64.b64encode(picture).decode(), "face_count": 3000, "type": "obj"}
        assert http.post("/generate", json=asked).status_code == 200
    loaded = Path(f"/proc/{server.pid}/maps").read_text()
    assert "uvloop" in loaded, "maps name what is loaded"
    assert not [name for name in FOREIGN if f"/{name}" in loaded]


@pytest.mark.parametrize(
    ("bound", "opened"),
    [
        (("127.0.0.1", 8081), "http://127.0.0.1:8081"),
        (("0.0.0.0", 80), "http://127.0.0.1:80"),
        (("::", 8081), "http://[::1]:8081"),
        (("fe80::1", 8081), "http://[fe80::1]:8081"),
    ],
)
def test_the_address_it_says_is_one_that_a_browser_opens(
    bound: tuple[str, int], opened: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_where(*bound)
    assert f"Open {opened} in a browser" in capsys.readouterr().out
