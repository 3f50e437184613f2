"""`meshkiln engines`, `meshkiln render`, `meshkiln completion`: looking at what there is."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path

import click

from meshkiln.cli import show
from meshkiln.engines.base import Engine
from meshkiln.engines.base import engines as registered
from meshkiln.errors import BadInput, MeshkilnError
from meshkiln.output import check_writable, write_whole


@click.command(short_help="Engines, their stages, parameters and recipes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def engines(as_json: bool) -> None:
    """Every engine: its stages, and its parameters with ranges and defaults."""
    found = registered()
    if as_json:
        click.echo(json.dumps([_as_json(engine) for engine in found.values()], indent=2))
        return
    out = show.console()
    for engine in found.values():
        out.print(f"{engine.name}  {engine.help}", style="bold")
        out.print("  " + " → ".join(stage.name for stage in engine.stages))
        out.print(f"  formats: {', '.join(engine.formats)}")
        for name, parameters in engine.recipes.items():
            out.print(f"  recipe {name}: " + ", ".join(f"{key}={value}" for key, value in parameters.items()))
        if engine.measured:
            out.print(f"  {_measured(engine.measured)}")
        rows = show.table("parameter", "default", "matters to")
        rows.add_column("", overflow="fold")
        for parameter in engine.parameters:
            stages = ", ".join(stage.name for stage in engine.stages if parameter.name in stage.parameters)
            told = f"{parameter.help}: {parameter.allowed()}"
            rows.add_row(parameter.name, str(parameter.default), stages, told)
        out.print(rows)


def _measured(path: str) -> str:
    """How an engine's runtime was tuned to this machine, or why that cannot be told."""
    module, _, name = path.partition(":")
    try:
        return str(getattr(import_module(module), name)())
    except (MeshkilnError, ImportError) as error:
        return f"its runtime was not measured: {error}"


def _as_json(engine: Engine) -> dict[str, object]:
    return {
        "name": engine.name,
        "help": engine.help,
        "stages": [
            {"name": s.name, "id": s.id, "version": s.version, "weights": s.weights, "numeric": s.numeric}
            for s in engine.stages
        ],
        "formats": dict(engine.formats),
        "recipes": {name: dict(parameters) for name, parameters in engine.recipes.items()},
        "parameters": [
            {
                "name": p.name,
                "default": p.default,
                "low": p.low,
                "high": p.high,
                "choices": list(p.choices),
                "unit": p.unit,
                "stages": [stage.name for stage in engine.stages if p.name in stage.parameters],
                "help": p.help,
            }
            for p in engine.parameters
        ],
    }


@click.command(short_help="Draw a mesh as a picture.")
@click.argument("mesh", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The PNG file.  [default: MESH-views.png]")
@click.option("--views", default="front,three-quarter,side,back", show_default=True, help="Which sides, left to right.")
@click.option("--size", default=512, show_default=True, type=click.IntRange(16, 4096), help="Pixels of one view.")
def render(mesh: Path, output: Path | None, views: str, size: int) -> None:
    """Draw MESH (GLB, OBJ, PLY, STL or 3MF) from several sides into one PNG, in software."""
    from meshkiln.render import render as draw

    if not os.path.isfile(mesh):
        raise BadInput(f"{mesh} {'is a folder' if os.path.isdir(mesh) else 'does not exist'}; give a mesh file")
    target = output or mesh.with_name(f"{mesh.stem}-views.png")
    check_writable(target)
    picture = draw(mesh, views=tuple(view.strip() for view in views.split(",")), size=size)
    import io

    png = io.BytesIO()
    picture.save(png, "PNG")
    write_whole(target, png.getvalue())
    click.echo(str(target))


@click.command(short_help="Print the shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
      eval "$(meshkiln completion bash)"           # in ~/.bashrc
      meshkiln completion fish > ~/.config/fish/completions/meshkiln.fish
    """
    from click.shell_completion import get_completion_class

    from meshkiln.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "meshkiln", "_MESHKILN_COMPLETE").source())
