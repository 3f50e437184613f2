"""`meshkiln explain`: what a request would find, what it would compute, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click

from meshkiln.cli import show
from meshkiln.cli.generate import asked_parameters, parameter_options
from meshkiln.engines.base import Stage, engine
from meshkiln.kiln import Kiln
from meshkiln.request import Link
from meshkiln.store.disk import Disk
from meshkiln.store.rows import Entry


@dataclass(frozen=True)
class Expectation:
    """What is to be expected of one stage. reason : why it would be computed, when something can be said."""

    link: Link
    stored: bool
    runs: bool
    seconds: float | None
    reason: str


@click.command(short_help="What a request would find and what it would compute.")
@click.argument("picture", type=click.Path(path_type=Path, readable=False))
@parameter_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    picture: Path,
    engine_name: str,
    recipe: str | None,
    format_: str | None,
    seed: int | None,
    faces: int | None,
    size: float | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Each stage's key, what is stored, which parameter caused a miss, and the seconds to expect. Computes nothing."""
    asked = engine(engine_name)
    parameters = asked_parameters(asked, settings, seed=seed, faces=faces, size=size)
    if format_ is not None:
        parameters["format"] = format_
    disk = Disk()
    try:
        kiln = Kiln(asked, disk)
        request, _ = kiln.request(picture, parameters, recipe)
        links = kiln.chain(request)
        expectations = expect(links, list(disk.entries()), request.parameters)
    finally:
        disk.close()
    if as_json:
        click.echo(json.dumps([_as_json(e) for e in expectations], indent=2))
        return
    out = show.console()
    rows = show.table("stage", "key", "stored", "would", "seconds", "why", right=("seconds",))
    for e in expectations:
        rows.add_row(
            e.link.stage.name,
            "known when read has run" if e.link.key is None else e.link.key.hex()[:16],
            "yes" if e.stored else "no",
            "run" if e.runs else ("be read" if e.stored else "not be needed"),
            "" if not e.runs else "unknown" if e.seconds is None else show.seconds(e.seconds),
            e.reason,
        )
    out.print(rows)
    known = [e.seconds for e in expectations if e.runs and e.seconds is not None]
    unknown = sum(e.runs and e.seconds is None for e in expectations)
    stages = "1 stage that has" if unknown == 1 else f"{unknown} stages that have"
    more = f", and {stages} never run here with such parameters" if unknown else ""
    out.print(f"expected: {show.seconds(sum(known))} of computing{more}")


def expect(links: Sequence[Link], entries: Sequence[Entry], parameters: Mapping[str, Any]) -> list[Expectation]:
    """What each stage of a chain would do, first to last.

    entries : everything stored; costs to expect are means over the artifacts of the same stage that were asked alike in
        what decides about its cost (`Stage.batch_with`)
    parameters : the request's
    """
    held = {entry.key for entry in entries}
    # A record under a cut-off's key answers for it unless a later stage wants what it made.
    stored = {link.stage.name: link.output is not None and link.output in held for link in links}
    needed, runs = {links[-1].stage.name}, set()
    for link in reversed(links):
        name = link.stage.name
        if name in needed and not stored[name]:
            runs.add(name)
            needed.update(link.stage.reads)
    source = next((link.output.hex() for link in links if link.stage.cutoff and link.output is not None), None)
    expectations = []
    for link in links:
        name = link.stage.name
        made = [entry for entry in entries if entry.provenance.get("stage") == name]
        alike = [entry.cost for entry in made if _as_dear(link.stage, entry, parameters)]
        mean = sum(alike) / len(alike) if alike else None
        read = name in needed and stored[name]
        reason = _reason(link, made, source, parameters) if name in runs else ""
        expectations.append(Expectation(link, stored[name], name in runs, mean, reason if not read else ""))
    return expectations


def _as_dear(stage: Stage, entry: Entry, parameters: Mapping[str, Any]) -> bool:
    """Whether an artifact of `stage` was asked for with the same values of what decides about its cost."""
    before = cast("dict[str, Any]", entry.provenance.get("parameters") or {})
    return all(before.get(name) == parameters[name] for name in stage.batch_with)


def _reason(link: Link, made: Sequence[Entry], source: str | None, parameters: Mapping[str, Any]) -> str:
    """Why nothing is stored for a stage: the parameters in which the nearest stored sibling differs."""
    if link.key is None or source is None:
        return "this file has not been read before"
    if link.stage.cutoff:
        return "its output is wanted, and it is cheaper to make than to keep"
    # Parameters gather along the chain: what another engine made has some that this request does not know.
    differences = []
    for entry in made:
        before = cast("dict[str, Any]", entry.provenance.get("parameters") or {})
        if entry.provenance.get("source") == source and set(before) <= set(parameters):
            differences.append({name: value for name, value in before.items() if parameters[name] != value})
    if not differences:
        return "not made from this picture before, or evicted"
    nearest = min(differences, key=len)
    if not nearest:
        return "evicted, or the stage has a new version"
    return ", ".join(f"{name}: stored {value}, asked {parameters[name]}" for name, value in sorted(nearest.items()))


def _as_json(e: Expectation) -> dict[str, object]:
    return {
        "stage": e.link.stage.name,
        "key": None if e.link.key is None else e.link.key.hex(),
        "stored": e.stored,
        "runs": e.runs,
        "expected_seconds": e.seconds if e.runs else 0.0,
        "reason": e.reason,
    }
