"""The command line. Exit codes: 0 done, 1 a stage or the store failed, 2 bad input or usage, 130 interrupted."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from meshkiln import __version__
from meshkiln.errors import BadInput, MeshkilnError

COMMANDS = {
    "generate": "meshkiln.cli.generate:generate",
    "explain": "meshkiln.cli.explain:explain",
    "serve": "meshkiln.cli.serve:serve",
    "render": "meshkiln.cli.look:render",
    "engines": "meshkiln.cli.look:engines",
    "cache": "meshkiln.cli.cache:cache",
    "settings": "meshkiln.cli.serve:settings",
    "completion": "meshkiln.cli.look:completion",
}


class _Interrupted(Exception):
    """Somebody pressed Ctrl-C while a command ran."""


class _Lazy(click.Group):
    """Commands import when they are asked for: `meshkiln --help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Interrupted from None


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="meshkiln")
def cli() -> None:
    """A picture in, a mesh out; and never the same thing made twice.

    Exit codes: 0 done, 1 a stage or the store failed, 2 the input or the usage is wrong, 130 interrupted.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        cli.main(standalone_mode=False, prog_name="meshkiln")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except _Interrupted:
        click.echo("meshkiln: interrupted", err=True)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        # A stage may be deep in somebody's C++ on a thread, where an interpreter that is taken down aborts.
        os._exit(130)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except MeshkilnError as error:
        click.echo(f"meshkiln: {error}", err=True)
        sys.exit(2 if isinstance(error, BadInput) else 1)
    except BrokenPipeError:
        # `meshkiln cache ls | head` closed its end; that is not an error, and nothing more can be printed.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(0)
