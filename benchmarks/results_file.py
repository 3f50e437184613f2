"""What a benchmark leaves behind: `results/<claim>.json`, and a partial file from which an interrupted run goes on.

    results = Results("memory_store", packages=["cachebox"], sources=[memory.__file__])
    hit = results.item("hit, one thread", lambda: measure(...))      # computed once, also across interruptions
    rows = results.items({"spot": partial(judge, "spot"), …})         # side by side, where nothing is timed
    results.finish({"hit_ns": hit}, bars=[Bar("hit against OrderedDict+RLock", ratio, 0.35)])

The file holds the figures as they were measured. A bar that is not reached stays in it with `"met": false`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
import operator
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from meshkiln.engines.vecset.manifest import manifest

# The generator of test shapes, `training`, is part of the repository and not of the package.
sys.path.append(str(Path(__file__).parents[1]))

FOLDER = Path(__file__).parent / "results"
TRIALS = Path(__file__).parents[1] / "out" / "benchmarks"
"""Where short runs leave their files: they are no results."""
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Bar:
    """A figure that was promised: `value op target`.

    op : "<=" or ">="
    unit : of value and target; empty for a ratio
    """

    name: str
    value: float
    target: float
    op: str = "<="
    unit: str = ""

    @property
    def met(self) -> bool:
        return _OPERATORS[self.op](self.value, self.target)


class Results:
    """The results of one claim, item by item.

    claim : the file's name, and the benchmark's
    packages : distributions whose versions the figures depend on
    sources : files that the figures depend on besides the running script. When one of them has changed since the
        interruption, the partial file is of other code and the run starts anew
    trial : a look and no result, which goes to `TRIALS` and is never gone on with
    """

    def __init__(
        self,
        claim: str,
        packages: Iterable[str] = (),
        sources: Iterable[str | Path] = (),
        folder: Path = FOLDER,
        trial: bool = False,
    ) -> None:
        self.claim = claim
        folder, sources = TRIALS if trial else folder, list(sources)
        self.path = folder / f"{claim}.json"
        self._partial = folder / ".partial" / f"{claim}.json"
        self._packages = ["meshkiln", *packages]
        self._weights = weights() if any(Path(source).name == "manifest.json" for source in sources) else {}
        script = getattr(sys.modules["__main__"], "__file__", None)
        self._code = _digest_of([*([script] if script else []), *sources])
        self._items: dict[str, Any] = {}
        if self._partial.exists() and not trial:
            partial = json.loads(self._partial.read_text())
            if partial["code"] == self._code:
                self._items = partial["items"]
                print(f"{claim}: going on after {len(self._items)} items of an interrupted run", flush=True)

    def item(self, name: str, compute: Callable[[], Any]) -> Any:
        """The JSON value that `compute` returns, from the interrupted run if it got that far."""
        if name not in self._items:
            self._keep(name, compute())
        return self._items[name]

    def items(self, computes: Mapping[str, Callable[[], Any]]) -> list[Any]:
        """The JSON values of many items, in their order, computed side by side in a process of one thread per
        processor: for figures that are no times.

        computes : by item name; picklable (`functools.partial` of a function of a module)
        """
        missing = {name: compute for name, compute in computes.items() if name not in self._items}
        if missing:
            spawned = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(len(missing), cores()), spawned, _on_one_thread) as pool:
                running = {pool.submit(compute): name for name, compute in missing.items()}
                try:
                    for done, future in enumerate(as_completed(running), 1):
                        self._keep(running[future], future.result())
                        print(f"{self.claim}: {done} of {len(missing)}", flush=True)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        return [self._items[name] for name in computes]

    def _keep(self, name: str, value: Any) -> None:
        # Through JSON at once, so that a resumed run sees the very values an uninterrupted one does.
        self._items[name] = json.loads(json.dumps(value))
        _write(self._partial, {"code": self._code, "items": self._items})

    def finish(self, figures: Mapping[str, Any], bars: Sequence[Bar] = (), notes: Sequence[str] = ()) -> bool:
        """Write the claim's file and print its bars; True when all are met.

        figures : JSON values, named with their unit (`hit_ns`)
        notes : what a reader must know to judge the figures (the workload, what is an upper bound)
        """
        _write(
            self.path,
            {
                "claim": self.claim,
                "figures": figures,
                "bars": [{**asdict(bar), "met": bar.met} for bar in bars],
                "notes": list(notes),
                "versions": {"python": platform.python_version(), **_versions(self._packages)},
                "machine": machine_class(),
                "date": datetime.now(UTC).date().isoformat(),
                "commit": _commit(),
                **({"weights": self._weights} if self._weights else {}),
            },
        )
        self._partial.unlink(missing_ok=True)
        for bar in bars:
            verdict = "met  " if bar.met else "SHORT"
            print(f"{verdict}  {bar.name}: {bar.value:.4g}{bar.unit} (bar: {bar.op} {bar.target:g}{bar.unit})")
        return all(bar.met for bar in bars)


def code_of(*packages: ModuleType) -> list[Path]:
    """All source files of packages, and the manifests of weights in them: `sources` of what runs an engine."""
    files = (file for package in packages for file in Path(package.__path__[0]).rglob("*"))
    return sorted(file for file in files if file.suffix == ".py" or file.name == "manifest.json")


def weights() -> dict[str, str]:
    """The bundled weights: each file and how its digest begins."""
    return {name: its[:12] for name, its in manifest().files.items()}


def machine_class() -> dict[str, Any]:
    """What kind of machine this is, without saying which: processor, cores, memory in GiB, system."""
    model, memory = platform.processor() or platform.machine(), 0.0
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": cores(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def data_folder() -> Path:
    """The folder of real data that `MESHKILN_DATA` names; exits with a sentence when there is none."""
    folder = os.environ.get("MESHKILN_DATA")
    if not folder:
        sys.exit("This benchmark measures on real data: set MESHKILN_DATA to the folder that holds it.")
    if not Path(folder).is_dir():
        sys.exit(f"MESHKILN_DATA is {folder}, which is not a folder.")
    return Path(folder)


def _on_one_thread() -> None:
    """What a process of its own among as many as there are processors begins with."""
    os.environ["MESHKILN_THREADS"] = "1"


def _versions(packages: Iterable[str]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}


def _commit() -> str:
    """The commit that was measured, marked when the measured code had uncommitted changes."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=FOLDER.parent, capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../src", ".", ":!results")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def _digest_of(sources: Iterable[str | Path]) -> str:
    total = hashlib.sha256()
    for source in sources:
        total.update(Path(source).read_bytes())
    return total.hexdigest()


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    beside.replace(path)  # an interruption leaves the old file or the new one
