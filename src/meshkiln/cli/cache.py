"""`meshkiln cache`: what the disk store holds, and letting go of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from meshkiln.cli import show
from meshkiln.engines.base import engines
from meshkiln.errors import BadInput, BadPicture
from meshkiln.keys import Key
from meshkiln.kiln import Kiln
from meshkiln.store.disk import Disk
from meshkiln.store.rows import Entry


@click.group(short_help="What is stored: stats, ls, rm, verify, clear.")
def cache() -> None:
    """What the disk store holds. MESHKILN_CACHE_DIR says where it is."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats(as_json: bool) -> None:
    """How much is stored, by stage, and what it would cost to make again."""
    disk = Disk()
    try:
        by_stage: dict[str, list[float]] = {}
        for entry in disk.entries():
            row = by_stage.setdefault(_stage(entry), [0, 0, 0.0, 0])
            row[0] += 1
            row[1] += entry.size
            row[2] += entry.cost
            row[3] += entry.hits
        held = disk.stats()
        faults = dict(held.faults)
    finally:
        disk.close()
    names = ("entries", "bytes", "cost_seconds", "hits")
    if as_json:
        stages = {stage: dict(zip(names, row, strict=True)) for stage, row in by_stage.items()}
        figures = {"folder": str(disk.folder), "entries": held.entries, "bytes": held.bytes}
        click.echo(json.dumps({**figures, "max_bytes": disk.max_bytes, "stages": stages, "faults": faults}, indent=2))
        return
    out = show.console()
    out.print(f"{disk.folder}: {held.entries} artifacts, {show.size(held.bytes)} of {show.size(disk.max_bytes)}")
    rows = show.table("stage", *names, right=names)
    for stage, (entries, size, cost, hits) in sorted(by_stage.items()):
        rows.add_row(stage, f"{entries:.0f}", show.size(int(size)), show.seconds(cost), f"{hits:.0f}")
    if by_stage:
        out.print(rows)
    for reason, count in faults.items():
        out.print(f"fault: {reason} ({count} times)")


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per artifact and line.")
def ls(as_json: bool) -> None:
    """What is stored, one artifact a line, first stored first."""
    disk = Disk()
    try:
        if as_json:
            for entry in disk.entries():
                click.echo(json.dumps(_as_json(entry)))
            return
        columns = ("key", "stage", "bytes", "cost", "hits", "age", "type")
        rows = show.table(*columns, right=("bytes", "cost", "hits", "age"))
        now = time.time()
        for entry in disk.entries():
            rows.add_row(
                entry.key.hex()[:16],
                _stage(entry),
                show.size(entry.size),
                show.seconds(entry.cost),
                str(entry.hits),
                show.seconds(now - entry.created),
                entry.media_type,
            )
        show.console().print(rows)
    finally:
        disk.close()


@cache.command()
@click.argument("keys", nargs=-1)
@click.option("--picture", type=click.Path(path_type=Path), help="Forget this picture and all derived from it.")
def rm(keys: tuple[str, ...], picture: Path | None) -> None:
    """Remove artifacts by KEY (or its beginning, as `cache ls` prints it), or all that came from a picture."""
    if not keys and picture is None:
        raise BadInput("name the keys to remove (see `meshkiln cache ls`), or give --picture FILE")
    disk = Disk()
    try:
        held = set(disk)  # finding out what came from a picture may read it, and so store its record
        doomed = [key for text in keys for key in _matching(disk, text)]
        if picture is not None:
            doomed += _derived(disk, picture)
        removed = 0
        for key in dict.fromkeys(doomed):
            if key in disk:
                del disk[key]
                removed += key in held
    finally:
        disk.close()
    click.echo(f"removed {removed} artifact{'s' if removed != 1 else ''}")


@cache.command()
def verify() -> None:
    """Read every artifact and check it against its digest; what fails is put into quarantine (exit code 1)."""
    disk = Disk()
    try:
        found = disk.verify()
    finally:
        disk.close()
    click.echo(
        f"{found.checked} artifacts checked: {found.corrupt} corrupt, {found.missing} missing; "
        f"{found.strays} stray files removed"
    )
    if found.corrupt or found.missing:
        raise SystemExit(1)


@cache.command()
@click.confirmation_option("--yes", "-y", prompt="Remove everything that is stored?")
def clear() -> None:
    """Remove everything."""
    disk = Disk()
    try:
        count = len(disk)
        disk.clear()
    finally:
        disk.close()
    click.echo(f"removed {count} artifact{'s' if count != 1 else ''}")


def _stage(entry: Entry) -> str:
    return str(entry.provenance.get("stage", "?"))


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key.hex(),
        "bytes": entry.size,
        "cost_seconds": entry.cost,
        "media_type": entry.media_type,
        "created": entry.created,
        "last_hit": entry.last_hit,
        "hits": entry.hits,
        "provenance": dict(entry.provenance),
    }


def _matching(disk: Disk, text: str) -> list[Key]:
    beginning = text.lower()
    if len(beginning) < 8 or len(beginning) > 64 or set(beginning) - set("0123456789abcdef"):
        raise BadInput(f"{text!r} is not a key: give at least 8 of its hexadecimal digits")
    found = [key for key in disk if key.hex().startswith(beginning)]
    if not found:
        raise BadInput(f"no stored key begins with {text}")
    if len(found) > 1:
        raise BadInput(f"{len(found)} stored keys begin with {text}; give more digits")
    return found


def _derived(disk: Disk, picture: Path) -> list[Key]:
    """Keys of all that came from `picture`, whatever engine made it."""
    doomed: list[Key] = []
    for engine in engines().values():
        kiln = Kiln(engine, disk)
        try:
            doomed += disk.keys_where(source=kiln.source(picture))
        except BadPicture:
            # An unreadable path is the caller's mistake; a file that is no picture has nothing derived from it.
            if not os.path.isfile(picture):
                raise
    return doomed
