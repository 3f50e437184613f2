"""Whether an installed Meshkiln serves its pages whole. Run by the Python it is installed in; wants the pages as built.

venv/bin/python served_page.py venv/bin/meshkiln src/meshkiln/studio
"""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def main(command: str, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([command, "serve", "--port", str(port)])
    try:
        waiting = ["/", "/operations"]
        _until_ready(f"{base}/readyz", server)
        seen: set[str] = set()
        while waiting:
            path = waiting.pop()
            with urllib.request.urlopen(base + path, timeout=30) as answer:
                text = answer.read().decode()
            names = re.findall(r'"/studio/([\w.-]+)"', text) + re.findall(r'"\./([\w.-]+\.js)"', text)
            waiting += [f"/studio/{name}" for name in names if name not in seen]
            seen.update(names)
        wanted = {path.name for path in folder.iterdir() if path.suffix in (".js", ".css", ".svg")}
        assert seen >= wanted, f"never asked for by the pages: {sorted(wanted - seen)}"
        for name in wanted:
            with urllib.request.urlopen(f"{base}/studio/{name}", timeout=30) as answer:
                assert answer.read() == (folder / name).read_bytes(), f"{name} is not the checkout's"
        print(f"{len(wanted)} files of the pages are served as they were built")
    finally:
        server.terminate()
        server.wait(60)


def _until_ready(url: str, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
