"""Canaries: a stage's output on fixed inputs, committed; they fail when the output changes and the version does not.

A stage's test calls `check(STAGE, {"case": value, ...})`. The first run records: `MESHKILN_CANARY=record pytest …`
writes `tests/canaries/<stage id>.json` (digests) or, for a stage with a tolerance, `.safetensors` (the values).
Recording refuses to replace an output under an unchanged version: bump the stage's version first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from meshkiln.engines.base import Stage
from meshkiln.engines.codec import pack
from meshkiln.keys import digest

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

FOLDER = Path(__file__).parent / "canaries"


def check(stage: Stage, values: Mapping[str, Value], close: Callable[[Any, Any], bool] | None = None) -> None:
    """Fail when `stage` no longer gives what was recorded for its version.

    values : case -> the stage's value; with `close`, dicts of arrays small enough to commit (a summary will do)
    close : (recorded, now) -> whether they agree; None compares digests, for stages of numeric class "exact"
    """
    if close is None:
        store: _Store = _Digests(FOLDER / f"{stage.id}.json")
        now: dict[str, Any] = {case: digest(pack(value)).hex() for case, value in values.items()}
        close = _equal
    else:
        store = _Arrays(FOLDER / f"{stage.id}.safetensors")
        now = dict(values)
    recording = os.environ.get("MESHKILN_CANARY") == "record"
    version, recorded = store.load()
    if version == stage.version:
        wrong = sorted(case for case in recorded if case not in now or not close(recorded[case], now[case]))
        if wrong:
            pytest.fail(
                f"{stage.id} gives another output for {', '.join(wrong)}, but its version is still {stage.version}: "
                "undo the change, or bump the version and record again with MESHKILN_CANARY=record"
            )
    if recording:
        store.save(stage.version, now)
    elif version != stage.version:
        pytest.fail(f"{stage.id} is at version {stage.version}, its canary at {version}: MESHKILN_CANARY=record")
    elif missing := sorted(set(now) - set(recorded)):
        pytest.fail(f"{stage.id} has no canary for {', '.join(missing)}: MESHKILN_CANARY=record")


def _equal(recorded: Any, now: Any) -> bool:
    return bool(recorded == now)


class _Digests:
    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[int, dict[str, Any]]:
        if not self.path.exists():
            return 0, {}
        content = json.loads(self.path.read_text())
        return content["version"], content["digests"]

    def save(self, version: int, values: Mapping[str, Any]) -> None:
        content = {"version": version, "digests": dict(sorted(values.items()))}
        self.path.write_text(json.dumps(content, indent=1) + "\n")


class _Arrays:
    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[int, dict[str, Any]]:
        if not self.path.exists():
            return 0, {}
        cases: dict[str, Any] = {}
        with safe_open(self.path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                case, _, array = name.partition("/")
                cases.setdefault(case, {})[array] = file.get_tensor(name)
            return int(file.metadata()["version"]), cases

    def save(self, version: int, values: Mapping[str, Any]) -> None:
        flat = {
            f"{case}/{name}": np.ascontiguousarray(array)
            for case, arrays in sorted(values.items())
            for name, array in sorted(arrays.items())
        }
        save_file(flat, self.path, {"version": str(version)})


_Store = _Digests | _Arrays
