"""The README's table of claims, made from `results/*.json`: `python -m benchmarks.claims --write`.

Nothing in the table is typed by hand; a test fails when README and results disagree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshkiln.engines.vecset.manifest import manifest

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
OTHER = "other weights"
"""What the table says of a row whose weights are not the bundled ones any more."""
BEGIN, END = "<!-- claims: made by `make results` -->", "<!-- end of claims -->"


@dataclass(frozen=True)
class Claim:
    """One benchmark's result file.

    bars : name, value, op, target, unit, met
    weights : what it was measured with, by file how its digest begins; empty when it depends on none
    """

    name: str
    bars: Sequence[Mapping[str, Any]]
    machine: Mapping[str, Any]
    date: str
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def former(self) -> bool:
        """Whether the weights that it was measured with are not the bundled ones any more."""
        return are_former(self.weights)


def are_former(weights: Mapping[str, str]) -> bool:
    """Whether any of these, by file how its digest begins, is not among the bundled weights any more."""
    files = manifest().files
    return any(not files.get(name, "").startswith(its) for name, its in weights.items())


def load(folder: Path = HERE / "results") -> list[Claim]:
    """Every result there is, by name."""
    found = []
    for path in sorted(folder.glob("*.json")):
        raw = json.loads(path.read_text())
        found.append(Claim(raw["claim"], raw["bars"], raw["machine"], raw["date"], raw.get("weights", {})))
    return found


def table(claims: Sequence[Claim]) -> str:
    """The claims as a Markdown table; a bar that is not reached says so."""
    lines = ["| what | measured | bar | | command |", "|---|---|---|---|---|"]
    for claim in claims:
        for bar in claim.bars:
            op = {"<=": "≤", ">=": "≥"}[bar["op"]]
            unit = f" {bar['unit'].strip()}" if bar["unit"] else ""
            met = ("met" if bar["met"] else "**short**") + (f", {OTHER}" if claim.former else "")
            command = f"`{command_of(claim.name)}`"
            value, target = f"{figure(bar['value'])}{unit}", f"{op} {figure(bar['target'])}{unit}"
            lines.append(f"| {bar['name']} | {value} | {target} | {met} | {command} |")
    machines = sorted({f"{c.machine['processor']}, {c.machine['cores']} cores" for c in claims})
    dates = sorted({claim.date for claim in claims})
    if claims:
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        lines += ["", f"Measured on {'; '.join(machines)}, {when}."]
    if any(claim.former for claim in claims):
        lines[-1] += f' "{OTHER}": the learned engine\'s weights have changed since; the row is of the former ones.'
    return "\n".join(lines)


def command_of(claim: str) -> str:
    """The command that writes a claim's file: a script of its name, or one that takes the last word as its part."""
    if (HERE / f"{claim}.py").exists():
        return f"benchmarks/{claim}.py"
    script, _, part = claim.rpartition("_")
    return f"benchmarks/{script}.py {part}"


def figure(value: float) -> str:
    """Three significant figures, without an exponent where people would not write one; more for a share near one."""
    if 0.9995 <= value < 1:
        return f"{value:.5f}"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def readme_with(claims: Sequence[Claim], text: str) -> str:
    """The README's text with its table replaced. Raises ValueError when the markers are gone."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(claims)}\n{END}{after}"


if __name__ == "__main__":
    made = readme_with(load(), README.read_text())
    if "--write" in sys.argv:
        README.write_text(made)
    else:
        print(table(load()))
