"""What decode, numeric, throughput, stage_cache and seventy_two found, as tables of docs/recipes.md.

Each function takes a result file's figures and gives the lines of Markdown that tell them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Figures = Mapping[str, Any]


def numeric(its: Figures) -> list[str]:
    """A row for each stage and class."""
    lines = [
        f"Medians over {its['pictures']} pictures, one thread; cells of the grid at 256³.",
        "",
        "| stage, class | faster | output off, % | with mates, % | surface: median | 99 % | within 0.1 cells |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in its["table"].items():
        if "refused" in row:
            lines.append(f"| {name} | not run: {row['refused']} | | | | | |")
            continue
        shares = [f"{100 * row[key]:.2f}" if key in row else "" for key in ("off", "mates")]
        cells = [f"{row['cells_median']:.3f}", f"{row['cells_99']:.2f}", f"{100 * row['within_a_tenth']:.0f} %"]
        lines.append(f"| {name} | {row['faster']:.2f} × | {' | '.join([*shares, *cells])} |")
    return lines


def decode(its: Figures) -> list[str]:
    """A row for each grid, and what each part of the sparse decoder's refinement costs and finds."""
    lines = [
        "Medians over three pictures, from features to mesh. Dense above 256³ is scaled from 60 of its chunks.",
        "",
        "| grid | queries: dense | sparse | patches | seconds: dense | sparse | patches | faster: sparse | patches "
        "| patches off, cells: median | 95 % |",
        "|---" * 11 + "|",
    ]
    for resolution, row in its["by_resolution"].items():
        queries = [f"{row[f'{name}_queries']:,.0f}" for name in ("dense", "sparse", "patches")]
        seconds = [f"{row[f'{name}_s']:.3g}" for name in ("dense", "sparse", "patches")]
        ratios = [f"{row[key]:.3g} ×" for key in ("faster", "patches_faster")]
        off = [f"{row[key]:.2f}" if key in row else "" for key in ("patches_off_q50", "patches_off_q95")]
        lines.append(f"| {resolution}³ | {' | '.join([*queries, *seconds, *ratios, *off])} |")
    lines += [
        "",
        f"Of {its['equal_shapes']} shapes (most at 64³, 20 at 128³, the timed ones at 256³), "
        f"{100 * its['equal_share_worst']:.3f} % of the sparse decoder's vertices lie within a tenth of a cell of the "
        f"dense one's at worst, {100 * its['equal_share_median']:.0f} % in the middle.",
        "",
        "| sparse at 256³ | queries | of the vertices that asking for most finds |",
        "|---|---|---|",
    ]
    for name, row in its["ablation_256"].items():
        lines.append(f"| {name} | {row['queries']:,.0f} | {100 * row['found']:.2f} % |")
    return lines


def queue(its: Figures) -> list[str]:
    """The two figures of a full queue, and the bare loop's curve."""
    best, rates = its["curve"]["best"], its["curve"]["items_per_second"]
    sizes = list(next(iter(rates.values())))
    lines = [
        _two(its, "A full queue of"),
        "",
        f"The bare loop, items a second by batch size ({its['curve']['threads']} threads; bold is what it then takes):",
        "",
        f"| stage | {' | '.join(sizes)} |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for stage, by_size in rates.items():
        cells = [f"**{rate:.3g}**" if int(size) == best[stage] else f"{rate:.3g}" for size, rate in by_size.items()]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    whole = [1 / sum(1 / by_size[size] for by_size in rates.values()) for size in sizes]
    lines.append(f"| generations | {' | '.join(f'{rate:.3g}' for rate in whole)} |")
    return lines


def reference(its: Figures) -> list[str]:
    """The two figures of the reference recipe."""
    return [_two(its, "The reference recipe, one by one, of")]


def _two(its: Figures, what: str) -> str:
    pictures = sum(run["pictures"] for run in its["rounds"])
    return (
        f"{what} {pictures} pictures in {len(its['rounds'])} rounds: {its['gateway_per_second']:.3g} generations a "
        f"second over HTTP, {its['bare_per_second']:.3g} in the bare loop; {its['ratio']:.2f} × as many in a round. "
        f"Workers' processor time is {100 * its['workers_cpu']:.0f} % of both cores' wall time; the gateway's own is "
        f"{1000 * its['gateway_cpu_s_each']:.0f} ms a generation."
    )


def stage_cache(its: Figures) -> list[str]:
    """How often each stage ran, and what a small store saves."""
    asked, store = its["requests"], its["replay"]
    stages = list(asked["ran"])
    return [
        f"| {asked['requests']} requests of one picture | {' | '.join(stages)} | seconds |",
        "|---" * (len(stages) + 2) + "|",
        f"| with the chain of keys | {' | '.join(str(n) for n in asked['ran'].values())} | {asked['seconds']:.3g} |",
        f"| each from nothing | {' | '.join(str(n) for n in asked['ran_from_nothing'].values())} "
        f"| {asked['from_nothing_s']:.3g} |",
        "",
        f"gentd26 ({store['requests']:,} requests, {store['trace_s']:,.0f} s) through a store of 20 MB: stage keys "
        f"save {store['stage_keys_saved_s']:,.0f} s ({100 * store['stage_keys_saved_share']:.1f} %), whole-result keys "
        f"{store['whole_result_keys_saved_s']:,.0f} s ({100 * store['whole_result_keys_saved_share']:.1f} %); without "
        f"a bound it would be {100 * store['unbounded_saved_share']:.1f} %.",
    ]


def seventy_two(its: Figures) -> list[str]:
    """The three times."""
    return [
        "| 72 requests over 30 pictures, over HTTP | seconds | the reference takes |",
        "|---|---|---|",
        f"| reference, one after another, no store: {its['reference_timed']} timed, scaled to 72 "
        f"| {its['reference_scaled_to_72_s']:,.0f} | |",
        f"| `fast`, cold | {its['cold_s']:.3g} | {its['reference_to_cold']:,.0f} × as long |",
        f"| `fast`, warm | {its['warm_s']:.3g} | {its['reference_to_warm']:,.0f} × as long |",
    ]


PARTS: Mapping[str, tuple[str, Callable[[Figures], list[str]]]] = {
    "decode": ("Decoding by resolution", decode),
    "numeric": ("Numeric classes", numeric),
    "throughput_queue": ("Throughput", queue),
    "throughput_reference": ("Throughput of the reference recipe", reference),
    "stage_cache": ("Stage cache against real use", stage_cache),
    "seventy_two": ("Seventy-two requests", seventy_two),
}
"""Result file → its title and what tells it."""
