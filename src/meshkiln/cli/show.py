"""How figures are said to people: seconds, sizes, and where a stage's output came from."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from meshkiln.result import Result, StageReport


def seconds(value: float) -> str:
    """Seconds with three significant figures in the unit that suits: "42 µs", "1.20 s", "3 min 20 s"."""
    if value <= 0:
        return "0 s"
    if value < 0.9995e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms"
    if value < 100:
        return f"{value:.3g} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def size(count: int) -> str:
    """Bytes in binary units: "512 B", "1.4 MiB"."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} TiB"


def source(stage: StageReport) -> str:
    """Where a stage's output came from, in words."""
    if stage.source is None:
        return "not needed"
    if stage.source == "computed":
        return "computed by another request" if stage.joined else "computed"
    return "found on disk" if stage.source == "disk" else f"found in {stage.source}"


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A plain table; columns named in `right` are right-aligned."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return made


def stage_table(result: Result) -> Table:
    """One row per stage of an answer: found where or computed, seconds, bytes."""
    rows = table("stage", "output", "seconds", "bytes", right=("seconds", "bytes"))
    for stage in result.stages:
        rows.add_row(
            stage.stage,
            source(stage),
            seconds(stage.seconds) if stage.seconds else "",
            size(stage.bytes) if stage.bytes else "",
        )
    return rows


def console(stderr: bool = False) -> Console:
    """A console that never wraps what is piped to a file or another program."""
    # Without markup: a file may well be called "[red].png".
    made = Console(stderr=stderr, highlight=False, markup=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, markup=False, width=160)
