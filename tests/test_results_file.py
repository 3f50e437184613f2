"""The file that benchmarks leave: it resumes, it belongs to the code that was measured, and it hides no shortfall."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from meshkiln import engines
from results_file import Bar, Results, code_of, data_folder
from wrk import Load


def test_an_interrupted_benchmark_goes_on_where_it_stopped(tmp_path: Path) -> None:
    computed: list[str] = []

    def compute(name: str) -> dict[str, float]:
        computed.append(name)
        return {"ns": 80.0}

    Results("claim", folder=tmp_path).item("first", lambda: compute("first"))
    resumed = Results("claim", folder=tmp_path)
    assert resumed.item("first", lambda: compute("first")) == {"ns": 80.0}
    resumed.item("second", lambda: compute("second"))
    assert computed == ["first", "second"]
    resumed.finish({"ns": 80.0})
    Results("claim", folder=tmp_path).item("first", lambda: compute("first"))
    assert computed == ["first", "second", "first"], "what is finished is measured anew"


def test_changed_code_starts_anew(tmp_path: Path) -> None:
    source = tmp_path / "store.py"
    source.write_text("slow")
    Results("claim", sources=[source], folder=tmp_path).item("x", lambda: 1)
    source.write_text("fast")
    assert Results("claim", sources=[source], folder=tmp_path).item("x", lambda: 2) == 2


def test_a_shortfall_stays_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars = [Bar("hit", 0.3, 0.35), Bar("saved", 1.1, 1.15, ">="), Bar("exact", 2.0, 2.0)]
    assert Results("claim", packages=["pytest"], folder=tmp_path).finish({"a": 1}, bars, ["why"]) is False
    left = json.loads((tmp_path / "claim.json").read_text())
    assert [bar["met"] for bar in left["bars"]] == [True, False, True]
    assert left["versions"]["pytest"] == pytest.__version__
    assert {"processor", "cores", "memory_gib", "system"} == set(left["machine"])
    assert "SHORT  saved" in capsys.readouterr().out


def test_real_data_is_asked_for_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHKILN_DATA", raising=False)
    with pytest.raises(SystemExit, match="set MESHKILN_DATA"):
        data_folder()


def test_figures_of_an_engine_depend_on_all_of_its_code_and_on_its_weights() -> None:
    found = {path.name for path in code_of(engines)}
    assert {"cubes.py", "clusters.py", "forecast.py", "base.py", "manifest.json"} <= found


@pytest.mark.parametrize("errors", [0, 3])
def test_a_load_whose_requests_were_refused_leaves_no_figure(
    errors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In place of wrk, which the machine may not have, what wrk and its script print.
    told = f'FIGURES {{"rate": 9.0, "p50": 1, "p99": 1, "most": 1, "errors": {errors}, "requests": 9}}'
    (tmp_path / "wrk").write_text(f"#!/bin/sh\necho '{told}'\n")
    (tmp_path / "wrk").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    load = Load(tmp_path, 1.0)
    if errors:
        with pytest.raises(SystemExit, match="3 errors among 9"):
            load(1, "/")
    else:
        assert load(1, "/")["rate"] == 9.0
