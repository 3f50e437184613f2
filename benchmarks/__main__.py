"""Every claim, measured on this machine: `python -m benchmarks [NAME…]`.

Each benchmark is a command of its own, `python benchmarks/NAME.py`; this runs them one after another, goes on when one
fails, and says at the end which bars were met.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.claims import load

HERE = Path(__file__).parent
NOT_BENCHMARKS = {"__main__", "__init__", "claims", "recipes_report", "results_file"}


def names() -> list[str]:
    """The benchmarks there are: the scripts beside this file that run as a command."""
    scripts = (path for path in sorted(HERE.glob("*.py")) if path.stem not in NOT_BENCHMARKS)
    return [path.stem for path in scripts if '__name__ == "__main__"' in path.read_text()]


def main(wanted: list[str]) -> int:
    unknown = set(wanted) - set(names())
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    failed = []
    for name in wanted or names():
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode:
            failed.append(name)
    short = [f"{claim.name}: {bar['name']}" for claim in load() for bar in claim.bars if not bar["met"]]
    print(f"\nbars not met: {'; '.join(short) or 'none'}")
    if failed:
        print(f"did not finish or fell short: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
