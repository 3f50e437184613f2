"""Runs a training module in several one-thread processes that average their gradients.

    python -m training.launch 2 training.train_autoencoder SHARDS OUT --minutes 45

On a shared machine this wastes less than threads inside one process, which wait for the slowest at every operation.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys


def main() -> int:
    count, module, *rest = sys.argv[1:]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = os.environ | {
        "WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen([sys.executable, "-m", module, *rest], env=common | {"RANK": str(rank)})
        for rank in range(int(count))
    ]
    signal.signal(signal.SIGTERM, lambda *_: [p.terminate() for p in processes])
    return max(p.wait() for p in processes)


if __name__ == "__main__":
    sys.exit(main())
