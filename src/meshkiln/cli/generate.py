"""`meshkiln generate`: pictures in, meshes out; one bad picture does not stop the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from meshkiln.cli import show
from meshkiln.engines.base import Engine, engine, read_texts
from meshkiln.errors import BadInput, BadOutput, BadParameter, MeshkilnError
from meshkiln.kiln import Kiln, Report
from meshkiln.output import check_writable, make_folder, write_unzipped
from meshkiln.result import Result


def parameter_options(command: click.decorators.FC) -> click.decorators.FC:
    """The options that `generate` and `explain` share: what a request may ask."""
    options = [
        click.option(
            "--engine", "-e", "engine_name", default="inflate", show_default=True, help="See `meshkiln engines`."
        ),
        click.option("--recipe", help="reference, balanced or fast, the default; see `meshkiln engines`."),
        click.option("--format", "-f", "format_", help="glb, obj, ply, stl or 3mf.  [default: from OUT, else glb]"),
        click.option("--seed", type=int, help="Which noise; the same seed gives the same mesh."),
        click.option("--faces", type=int, help="Target face count; 0 keeps what the engine makes."),
        click.option("--size", type=float, help="Longest side in millimetres, for the printing formats."),
        click.option(
            "--set", "-p", "settings", multiple=True, metavar="NAME=VALUE", help="Any parameter of the engine."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Make a mesh of each picture.")
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, readable=False),
    help="A file; or a folder, as for several pictures.",
)
@parameter_options
@click.option("--refresh", is_flag=True, help="Compute every stage again, whatever is stored.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per picture and line on standard output.")
def generate(
    pictures: tuple[Path, ...],
    output: Path | None,
    engine_name: str,
    recipe: str | None,
    format_: str | None,
    seed: int | None,
    faces: int | None,
    size: float | None,
    settings: tuple[str, ...],
    refresh: bool,
    as_json: bool,
) -> None:
    """Make a mesh of each picture, and say what was found and what was computed.

    Without --output the mesh is written beside you, under the picture's name. What has been made before, in whole or in
    part, is not made again.

    \b
      meshkiln generate chair.jpg                      chair.glb
      meshkiln generate chair.jpg -o chair.obj         with its material and texture beside it
      meshkiln generate chair.jpg -o chair.stl --size 80
      meshkiln generate *.jpg -o meshes/ --json
    """
    asked = engine(engine_name)
    parameters = asked_parameters(asked, settings, seed=seed, faces=faces, size=size)
    format_ = _format(asked, format_, output)
    targets = _targets(asked, pictures, output, format_)
    # What cannot work is refused before anything is computed or stored.
    asked.over_recipe(recipe, {**parameters, "format": format_})
    for target in targets:
        check_writable(target)
        if any(os.path.exists(target) and os.path.exists(p) and os.path.samefile(target, p) for p in pictures):
            raise BadOutput(f"{target} is one of the pictures; name another file")
    kiln = Kiln(asked)
    worst = 0
    try:
        with _progress(len(pictures), quiet=as_json) as report:
            for picture, target in zip(pictures, targets, strict=True):
                try:
                    result = kiln.generate(
                        picture, format_, recipe=recipe, refresh=refresh, report=report.stage, **parameters
                    )
                    make_folder(target.parent)
                    if target.suffix != ".zip" and result.media_type == "application/zip":
                        write_unzipped(target, result.data)
                    else:
                        result.save(target)
                except MeshkilnError as error:
                    worst = max(worst, 1 if not isinstance(error, BadInput) else 2)
                    report.failed(picture, error, as_json)
                else:
                    report.done(picture, target, result, as_json)
    finally:
        kiln.close()
    if worst:
        raise SystemExit(worst)


def asked_parameters(asked: Engine, settings: tuple[str, ...], **named: object) -> dict[str, Any]:
    """What the options ask for, values read as the engine's parameters want them. Raises BadParameter."""
    parameters: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    texts = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise BadParameter(f"--set {setting} is not NAME=VALUE, such as steps=20")
        texts[name] = text
    return {**parameters, **read_texts(asked, texts)}


def _format(asked: Engine, format_: str | None, output: Path | None) -> str:
    """The format asked for: by name, or by the suffix of the file asked for."""
    if format_ is not None:
        return format_
    if output is None or os.path.isdir(output) or not output.suffix:
        return "glb"
    suffixes = [output.suffix[1:].lower(), output.with_suffix("").suffix[1:].lower()]
    said = suffixes[1] if suffixes[0] == "zip" else suffixes[0]
    if said not in asked.formats:
        raise BadOutput(f"{output} does not say a format; its suffix can be one of {', '.join(asked.formats)}")
    return said


def _targets(asked: Engine, pictures: tuple[Path, ...], output: Path | None, format_: str) -> list[Path]:
    """Where each picture's mesh goes: the file that was named, or the picture's name in a folder."""
    zipped = asked.formats.get(format_) == "application/zip"
    suffix = f".{format_}.zip" if zipped else f".{format_}"
    if output is not None and not os.path.isdir(output) and output.suffix:
        if len(pictures) > 1:
            raise BadOutput(f"{output} is one file, for {len(pictures)} pictures; give a folder")
        if not output.name.lower().endswith((suffix, f".{format_}")):
            raise BadOutput(f"{output}: {format_} is written as {suffix}; name it {output.stem}{suffix}")
        return [output]
    folder = output or Path()
    targets = [folder / f"{picture.stem}{suffix}" for picture in pictures]
    for target in targets:
        if targets.count(target) > 1:
            raise BadOutput(f"two of the pictures would both be written to {target}; make their names differ")
    return targets


class _Said:
    """Tells a person (or a program, in JSON lines) what becomes of each picture."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.out = show.console()
        self.task = progress.add_task("", total=total) if progress is not None else None

    @property
    def stage(self) -> Report | None:
        if self.progress is None or self.task is None:
            return None
        progress, task = self.progress, self.task

        def report(stage: str, step: int, steps: int) -> None:
            progress.update(task, description=f"{stage} {step}/{steps}" if steps > 1 else stage)

        return report

    def done(self, picture: Path, target: Path, result: Result, as_json: bool) -> None:
        self._advance()
        if as_json:
            click.echo(json.dumps({"picture": str(picture), "output": str(target), **result.as_json()}))
            return
        where = self.progress.console if self.progress is not None else self.out
        if self.total == 1:
            where.print(show.stage_table(result))
        saved = f", saved {show.seconds(result.saved)}" if result.saved > 0 else ""
        where.print(f"{target}  {show.size(len(result.data))} in {show.seconds(result.seconds)}{saved}", soft_wrap=True)

    def failed(self, picture: Path, error: MeshkilnError, as_json: bool) -> None:
        self._advance()
        if as_json:
            click.echo(json.dumps({"picture": str(picture), "error": str(error), "type": type(error).__name__}))
        sentence = str(error) if str(picture) in str(error) else f"{picture}: {error}"
        click.echo(f"meshkiln: {sentence}", err=True)

    def _advance(self) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task)


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[_Said]:
    stderr = show.console(stderr=True)
    if quiet or not stderr.is_terminal:
        yield _Said(None, total)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=stderr, transient=True) as progress:
        yield _Said(progress, total)
