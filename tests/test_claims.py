"""The README says what the benchmarks printed, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.claims import BEGIN, END, HERE, README, Claim, command_of, load, readme_with, table
from benchmarks.results_file import Bar, Results
from meshkiln.engines.vecset.manifest import FOLDER

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import recipes_report


def test_readme_and_results_agree() -> None:
    text = README.read_text()
    assert readme_with(load(), text) == text, "the table is not what the results say: run `make results`"


def test_the_recipes_page_and_results_agree() -> None:
    text = (HERE.parent / "docs" / "recipes.md").read_text()
    assert recipes_report.page_with(text) == text, "the tables are not what the results say: run `make results`"
    table = json.loads((HERE / "results" / "recipes_curve.json").read_text())["figures"]["table"]
    picture = (HERE.parent / "docs" / "recipes.svg").read_text()
    assert recipes_report.svg(table) == picture, "the picture is not what the results say: run `make results`"


def test_figures_of_other_weights_than_the_bundled_ones_say_so(tmp_path: Path) -> None:
    measured = json.loads((HERE / "results" / "recipes_quality.json").read_text())
    measured["weights"] = {"flow.onnx": "0" * 12}
    (tmp_path / "recipes_quality.json").write_text(json.dumps(measured))
    served = json.loads((HERE / "results" / "seventy_two.json").read_text())
    served["weights"] = {"flow.onnx": "0" * 12}
    (tmp_path / "seventy_two.json").write_text(json.dumps(served))
    told = recipes_report.markdown(tmp_path)
    assert "flow.onnx 000000000000 (**not the bundled ones any more**)" in told
    assert f"commit {served['commit']} (**other weights than the bundled ones**)" in told


def test_a_row_of_other_weights_than_the_bundled_ones_says_so(tmp_path: Path) -> None:
    manifest = FOLDER / "manifest.json"
    Results("learned", sources=[manifest], folder=tmp_path).finish({}, [Bar("x", 1.0, 2.0)])
    Results("plain", folder=tmp_path).finish({}, [Bar("y", 1.0, 2.0)])
    assert "other weights" not in table(load(tmp_path))
    measured = json.loads((tmp_path / "learned.json").read_text())
    measured["weights"]["flow.onnx"] = "0" * 12
    (tmp_path / "learned.json").write_text(json.dumps(measured))
    rows = {line[2]: line for line in table(load(tmp_path)).splitlines() if line.startswith(("| x", "| y"))}
    assert "met, other weights" in rows["x"]
    assert "other weights" not in rows["y"]


def test_every_result_names_a_command_that_exists() -> None:
    for claim in load():
        assert (HERE.parent / command_of(claim.name).partition(" ")[0]).exists()


def test_a_bar_that_is_not_reached_stays_and_says_so(tmp_path: Path) -> None:
    results = Results("anything", folder=tmp_path)
    assert not results.finish({"x": 3.0}, bars=[Bar("x", 3.0, 2.0), Bar("y", 3.0, 2.0, ">=", "s")])
    (claim,) = load(tmp_path)
    rows = [line for line in table([claim]).splitlines() if line.startswith(("| x", "| y"))]
    assert "**short**" in rows[0]
    assert "3 s | ≥ 2 s | met" in rows[1]


def test_an_interrupted_benchmark_goes_on_where_it_was(tmp_path: Path) -> None:
    runs: list[str] = []

    def measure(name: str) -> float:
        runs.append(name)
        if name == "broken" and runs.count("broken") == 1:
            raise KeyboardInterrupt
        return 1.0

    for _ in range(2):
        results = Results("long", folder=tmp_path)
        try:
            for name in ("first", "broken", "last"):
                results.item(name, lambda name=name: measure(name))
        except KeyboardInterrupt:
            continue
        results.finish({})
    assert runs == ["first", "broken", "broken", "last"]
    written = json.loads((tmp_path / "long.json").read_text())
    assert {"figures", "versions", "machine", "date", "commit"} <= set(written)


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        readme_with([], "no table here")
    assert readme_with([Claim("c", [], {"processor": "p", "cores": 2}, "d")], f"a{BEGIN}x{END}b").endswith(f"{END}b")
