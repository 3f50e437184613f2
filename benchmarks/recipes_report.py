"""What benchmarks/recipes.py found, as tables, a picture, and the generated part of docs/recipes.md.

python benchmarks/recipes_report.py        (part of `make results`: writes that page from benchmarks/results)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import serving_report
from claims import are_former, command_of
from results_file import FOLDER

Rows = Sequence[Mapping[str, Any]]
_MODEL = ("flow.onnx", "student.onnx", "query.onnx", "nodes.onnx")
BEGIN, END = "<!-- measured: made by `make results` -->", "<!-- end of what was measured -->"
DRAWS = 10_000


def paired(made: Mapping[str, Rows], stages: Sequence[str]) -> dict[str, Any]:
    """Medians by recipe, and how many times faster than the first recipe each is, picture by picture."""
    first, *others = made
    by_recipe = {
        recipe: {
            "stages_s": {name: median(row["stages_s"][name] for row in rows) for name in stages},
            **{name: median(row[name] for row in rows) for name in ("model_s", "total_s", "evaluations", "queries")},
            "pictures": len(rows),
            "scaled": sum(row["scaled"] for row in rows),
        }
        for recipe, rows in made.items()
    }
    faster = {
        recipe: {
            kind: median(
                slow[f"{kind}_s"] / quick[f"{kind}_s"] for slow, quick in zip(made[first], made[recipe], strict=True)
            )
            for kind in ("model", "total")
        }
        for recipe in others
    }
    return {"by_recipe": by_recipe, "faster": faster}


def print_speed(table: Mapping[str, Any]) -> None:
    for resolution, its in table.items():
        for recipe, row in its["by_recipe"].items():
            stages = " ".join(f"{name} {seconds:.4f}" for name, seconds in row["stages_s"].items())
            times = its["faster"].get(recipe)
            ratio = f"  model {times['model']:.0f} ×, end to end {times['total']:.0f} ×" if times else ""
            work = f"evaluations {row['evaluations']:g}  queries {row['queries']:.0f}"
            print(f"{resolution:>4} {recipe:>9}  {stages}  {work}{ratio}")


def loss(
    reference: np.ndarray[Any, Any], other: np.ndarray[Any, Any], groups: Sequence[Any], seed: int = 0
) -> dict[str, float]:
    """(mean of reference − mean of other) / mean of reference, with its 95 % paired bootstrap bounds over groups."""
    kinds, group = np.unique([str(g) for g in groups], return_inverse=True)
    sums = np.stack([np.bincount(group, values) for values in (reference, other)])
    drawn = np.random.default_rng(seed).integers(0, len(kinds), (DRAWS, len(kinds)))
    ours, theirs = sums[:, drawn].sum(axis=2)
    lower, upper = np.quantile(1 - theirs / np.maximum(ours, 1e-9), [0.025, 0.975])
    mean = 1 - float(other.mean()) / max(float(reference.mean()), 1e-9)
    return {"mean": round(mean, 5), "lower": round(float(lower), 5), "upper": round(float(upper), 5)}


def losses(rows: Rows, metrics: Sequence[str], first: str, others: Sequence[str]) -> dict[str, Any]:
    """Recipe → metric → its loss, what the two means are, and how many shapes."""
    groups = [row["shape"] for row in rows]

    def values(recipe: str, metric: str) -> np.ndarray[Any, Any]:
        return np.array([row[recipe][metric] for row in rows], float)

    return {
        recipe: {
            metric: {
                **loss(values(first, metric), values(recipe, metric), groups),
                "reference": round(float(values(first, metric).mean()), 4),
                "value": round(float(values(recipe, metric).mean()), 4),
                "shapes": len(set(map(str, groups))),
            }
            for metric in metrics
        }
        for recipe in others
    }


def print_losses(table: Mapping[str, Any]) -> None:
    for shapes, by_recipe in table.items():
        for recipe, by_metric in by_recipe.items():
            cells = (
                f"{m} {100 * f['mean']:+.2f} % [{100 * f['lower']:+.2f}, {100 * f['upper']:+.2f}]"
                for m, f in by_metric.items()
            )
            print(f"{shapes} {recipe}, loss: " + "; ".join(cells))


def curve(rows: Rows, metrics: Sequence[str], tried: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By combination: means, evaluations, seconds, and the loss against the reference."""
    out = {}
    for name, parameters in tried.items():
        figures = {
            metric: loss(
                np.array([row["reference"][metric] for row in rows]),
                np.array([row[name][metric] for row in rows]),
                range(len(rows)),
            )
            for metric in metrics
        }
        out[name] = {
            "parameters": dict(parameters),
            "evaluations": round(float(np.mean([row[name]["evaluations"] for row in rows])), 2),
            "sample_cpu_s": round(float(np.mean([row[name]["sample_cpu_s"] for row in rows])), 4),
            "latents_off": round(float(np.mean([row[name]["latents_off"] for row in rows])), 4),
            **{metric: round(float(np.mean([row[name][metric] for row in rows])), 4) for metric in metrics},
            "loss": figures,
            "shapes": len(rows),
        }
        its = out[name]
        print(f"{name:>28}  {its['evaluations']:6.1f} evaluations  " + "  ".join(f"{m} {its[m]:.3f}" for m in metrics))
    return out


def svg(table: Mapping[str, Any], metric: str = "f_score_0.05") -> str:
    """Seconds of sampling (logarithmic) against quality; named are the recipes, and the front: who has none that is as
    good and faster."""
    wide, high, left, right, top, bottom = 860, 470, 70, 180, 30, 60
    points = {name: (row["sample_cpu_s"], row[metric]) for name, row in table.items()}
    low, most = (math.log10(f(x for x, _ in points.values())) for f in (min, max))
    worst, best = (f(y for _, y in points.values()) for f in (min, max))
    span, height = max(most - low, 1e-6), max(best - worst, 1e-6)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (math.log10(x) - low) / span * (wide - left - right),
            high - bottom - (y - worst) / height * (high - top - bottom),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">',
        f'<rect width="{wide}" height="{high}" fill="#fff"/>',
        f'<path d="M{left} {top}V{high - bottom}H{wide - right}" fill="none" stroke="#888"/>',
        f'<text x="{left}" y="{high - 12}">processor seconds of sampling one picture (logarithmic)</text>',
        f'<text x="{left}" y="{top - 12}">mean {metric} against the true shape</text>',
    ]
    for power in range(math.floor(low), math.ceil(most) + 1):
        for digit in (1, 2, 5):
            x = digit * 10.0**power
            if low <= math.log10(x) <= most:
                parts.append(
                    f'<text x="{at(x, worst)[0]:.1f}" y="{high - bottom + 18}" text-anchor="middle">{x:g}</text>'
                )
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = worst + share * height
        parts.append(f'<text x="{left - 8}" y="{at(10**low, y)[1] + 4:.1f}" text-anchor="end">{y:.3f}</text>')
    named = {"reference", "balanced", "fast"}
    front = {name for name, (x, y) in points.items() if not any(a < x and b >= y for a, b in points.values())}
    path = " ".join("{:.1f},{:.1f}".format(*at(*points[name])) for name in sorted(front, key=points.__getitem__))
    parts.append(f'<polyline points="{path}" fill="none" stroke="#9bb" stroke-dasharray="4 3"/>')
    labels = []
    for name, (x, y) in sorted(points.items(), key=lambda item: item[0] in named):
        px, py = at(x, y)
        colour = "#c0392b" if name in named else "#2c6e9b" if name.startswith("student") else "#555"
        parts.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{5 if name in named else 3.5}" fill="{colour}">'
            f"<title>{name}</title></circle>"
        )
        if name in named:  # over the crowd they stand in, and not over each other
            above = py - 14 - 16 * (len(labels) % 2)
            middle = f'text-anchor="middle" fill="{colour}" font-weight="bold"'
            labels.append(f'<text x="{px:.1f}" y="{above:.1f}" {middle}>{name}</text>')
        elif name in front:
            labels.append(f'<text x="{px + 7:.1f}" y="{py + 4:.1f}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, *labels, "</svg>", ""])


def markdown(folder: Path = FOLDER) -> str:
    """What there is of the three parts' results, as text."""
    lines = []
    for part, told in (("speed", _speed), ("quality", _quality), ("curve", _curve)):
        path = folder / f"recipes_{part}.json"
        if path.exists():
            raw = json.loads(path.read_text())
            lines += [f"### `benchmarks/recipes.py {part}`", "", *told(raw["figures"]["table"]), ""]
            lines += [f"Weights {_weights(raw['weights'])}; {raw['date']}, commit {raw['commit']}.", ""]
        else:
            lines += [f"### `benchmarks/recipes.py {part}`", "", "Not measured yet on these weights.", ""]
    for claim, (title, told) in serving_report.PARTS.items():
        path = folder / f"{claim}.json"
        lines += [f"### {title}: `{command_of(claim)}`", ""]
        if path.exists():
            raw = json.loads(path.read_text())
            former = " (**other weights than the bundled ones**)" if are_former(raw.get("weights", {})) else ""
            lines += [*told(raw["figures"]), "", f"{raw['date']}, commit {raw['commit']}{former}.", ""]
        else:
            lines += ["Not measured yet.", ""]
    return "\n".join(lines)


def _weights(measured: Mapping[str, str]) -> str:
    """The weights that a recipe's figures come from, and whether they are the bundled ones still."""
    named = " ".join(f"{name} {measured[name]}" for name in _MODEL if name in measured)
    return f"{named} (**not the bundled ones any more**)" if are_former(measured) else named


def _speed(table: Mapping[str, Any]) -> list[str]:
    lines = []
    for resolution, its in table.items():
        names = list(next(iter(its["by_recipe"].values()))["stages_s"])
        lines += [
            f"| {resolution}³, seconds | {' | '.join(names)} | model | end to end | evaluations | queries | faster |"
        ]
        lines += ["|---" * (len(names) + 6) + "|"]
        for recipe, row in its["by_recipe"].items():
            cells = [f"{row['stages_s'][name]:.3g}" for name in names]
            times = its["faster"].get(recipe)
            ratio = f"{times['model']:.0f} × ({times['total']:.0f} × end to end)" if times else ""
            scaled = f" ({row['scaled']} of {row['pictures']} scaled)" if row["scaled"] else ""
            cells += [
                f"{row['model_s']:.3g}",
                f"{row['total_s']:.3g}",
                f"{row['evaluations']:g}",
                f"{row['queries']:,.0f}",
            ]
            lines.append(f"| {recipe}{scaled} | {' | '.join(cells)} | {ratio} |")
        lines.append("")
    return lines


def _quality(table: Mapping[str, Any]) -> list[str]:
    metrics = list(next(iter(next(iter(table.values())).values())))
    lines = [f"| loss against `reference`, % | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for shapes, by_recipe in table.items():
        for recipe, by_metric in by_recipe.items():
            cells = [
                f"{100 * f['mean']:+.2f} [{100 * f['lower']:+.2f}, {100 * f['upper']:+.2f}]" for f in by_metric.values()
            ]
            count = next(iter(by_metric.values()))["shapes"]
            lines.append(f"| {recipe}, {count} {shapes} | {' | '.join(cells)} |")
    widest = []
    for shapes, by_recipe in table.items():
        points = max(100 * (f["upper"] - f["lower"]) for its in by_recipe.values() for f in its.values())
        widest.append(f"{points:.2f} points wide on the {shapes} shapes")
    return [*lines, "", f"At its widest an interval is {' and '.join(widest)}. One seed, at 256³, before `finish`."]


def _curve(table: Mapping[str, Any]) -> list[str]:
    lines = [
        "| combination | evaluations | latents off | volume IoU | F@0.02 | F@0.05 | loss of F@0.05, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        lost = row["loss"]["f_score_0.05"]
        bounds = f"{100 * lost['mean']:+.1f} [{100 * lost['lower']:+.1f}, {100 * lost['upper']:+.1f}]"
        cells = f"{row['volume_iou']:.3f} | {row['f_score_0.02']:.3f} | {row['f_score_0.05']:.3f}"
        lines.append(f"| {name} | {row['evaluations']:g} | {row['latents_off']:.3f} | {cells} | {bounds} |")
    return [*lines, "", "![seconds against quality](recipes.svg)"]


def write(docs: Path, folder: Path = FOLDER) -> None:
    """Put the results into docs/recipes.md between its markers, and draw docs/recipes.svg."""
    curve_file = folder / "recipes_curve.json"
    if curve_file.exists():
        (docs / "recipes.svg").write_text(svg(json.loads(curve_file.read_text())["figures"]["table"]))
    page = docs / "recipes.md"
    page.write_text(page_with(page.read_text(), folder))


def page_with(text: str, folder: Path = FOLDER) -> str:
    """The page's text with its generated part made anew. Raises ValueError when its markers are gone."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/recipes.md needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{markdown(folder)}\n{END}{after}"


if __name__ == "__main__":
    write(Path(__file__).parents[1] / "docs")
