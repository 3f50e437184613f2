"""`meshkiln serve` and `meshkiln settings`."""

from __future__ import annotations

import json

import click

from meshkiln.cli import show
from meshkiln.errors import MeshkilnError
from meshkiln.settings import Loaded, allowed, load, variable


@click.command(short_help="Serve over HTTP.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8081]")
@click.option("--engine", help="Engine of requests that name none.")
@click.option("--workers", type=int, help="Worker processes.  [default: one per core]")
@click.option("--upstream", "upstreams", multiple=True, metavar="URL", help="A server that engine `upstream` sends to.")
@click.option("--upstream-model", help="The model they serve: part of every key.  [default: what /health tells]")
def serve(
    host: str | None,
    port: int | None,
    engine: str | None,
    workers: int | None,
    upstreams: tuple[str, ...],
    upstream_model: str | None,
) -> None:
    """Serve over HTTP until told to stop. Every setting has an environment variable too: see `meshkiln settings`."""
    options = {"host": host, "port": port, "engine": engine, "workers": workers, "upstreams": upstreams or None}
    options["upstream_model"] = upstream_model
    loaded = load(options).settings
    try:
        from meshkiln.gateway.serve import run
    except ModuleNotFoundError as error:
        raise MeshkilnError(f"serving needs {error.name}: install meshkiln[serve]") from None
    run(loaded, listens=say_where)


def say_where(host: str, port: int) -> None:
    """Where a browser finds the server. An address that stands for every one of the machine's is none to open."""
    every = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    name = every.get(host, f"[{host}]" if ":" in host else host)
    others = ", of this machine; it listens on every address" if host in every else ""
    click.echo(f"Open http://{name}:{port} in a browser{others}; the API is described at /docs")


@click.command(short_help="Every setting of the server, its value and where it came from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def settings(as_json: bool) -> None:
    """Every setting of the server with its value, where that came from, and what is allowed."""
    loaded = load()
    if as_json:
        click.echo(json.dumps(_as_json(loaded), indent=2))
        return
    rows = show.table("setting", "value", "from", "variable", "allowed")
    for wide in (rows.columns[1], rows.columns[4]):
        # A long path folds in its own column: the names are there to be copied.
        wide.no_wrap, wide.overflow = False, "fold"
    for name, origin in loaded.origins.items():
        value = getattr(loaded.settings, name)
        told = (
            ", ".join(value)
            if isinstance(value, tuple)
            else str(value).lower()
            if value in (True, False)
            else str(value)
        )
        # A path would leave no room for the other columns.
        place = origin if origin in ("default", "option", variable(name)) else "the file"
        rows.add_row(name, told, place, variable(name), allowed(name))
    out = show.console()
    out.print(rows)
    for path in sorted(set(loaded.origins.values()) - {"default", "option", *map(variable, loaded.origins)}):
        out.print(f"the file is {path}", soft_wrap=True)


def _as_json(loaded: Loaded) -> dict[str, object]:
    return {
        name: {"value": getattr(loaded.settings, name), "from": origin, "variable": variable(name)}
        for name, origin in loaded.origins.items()
    }
