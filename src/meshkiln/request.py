"""Requests in canonical form, and their chains of keys. Pure: no store, no clock, no computing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshkiln.engines.base import PICTURE, Engine, Scalar, Stage
from meshkiln.errors import BadParameter, BadPicture
from meshkiln.keys import Digest, Key, output_key, source_key, stage_key

MAX_FILE_BYTES = 512 * 2**20
"""A picture's file is read whole; 64 million pixels of 16 bits and four channels, uncompressed, take as much."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, in canonical form: equal requests have equal chains.

    source : key of the picture's bytes as they came
    parameters : every parameter of the engine, defaults filled in
    """

    engine: Engine
    source: Key
    parameters: Mapping[str, Scalar]
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """One stage of a chain.

    key : names the stage's computation; None while it hangs on a cut-off that no record resolves
    output : names what the stage makes, and is what later keys contain and the store keeps it under: the key itself, or
        after an early cut-off the key of the output's digest (None while no record tells it)
    """

    stage: Stage
    key: Key | None
    output: Key | None


def canonical_request(
    engine: Engine,
    picture: bytes,
    parameters: Mapping[str, object],
    *,
    recipe: str | None = None,
    namespace: str = "",
) -> Request:
    """The request for `picture` with `parameters` laid over those of `recipe`, checked and completed.

    Raises BadParameter for an unknown recipe or parameter, or a value out of range.
    """
    merged: dict[str, object] = {}
    if recipe is not None:
        if recipe not in engine.recipes:
            there = ", ".join(engine.recipes) or "none"
            raise BadParameter(f"engine {engine.name} has no recipe {recipe!r}; there are {there}")
        merged.update(engine.recipes[recipe])
    merged.update(parameters)
    return Request(engine, source_key(picture), engine.canonical(merged), namespace)


def chain(request: Request, recorded: Callable[[Key], Digest | None]) -> tuple[Link, ...]:
    """The keys of `request`, first stage to last, as far as records tell.

    recorded : the output digest that a record holds for the key of a cut-off stage, or None
    """
    outputs: dict[str, Key | None] = {PICTURE: request.source}
    links = []
    for stage in request.engine.stages:
        inputs = [outputs[name] for name in stage.reads]
        key = output = None
        known = [name for name in inputs if name is not None]
        if len(known) == len(inputs):
            key = stage_key(stage.fingerprint, stage.mattering(request.parameters), known, request.namespace)
            output = key
            if stage.cutoff:
                made = recorded(key)
                output = None if made is None else output_key(made)
        outputs[stage.name] = output
        links.append(Link(stage, key, output))
    return tuple(links)


def picture_bytes(picture: object) -> bytes:
    """The bytes of a picture given as a path, bytes, a PIL image or an array (H, W[, 1|3|4]) of uint8.

    Raises BadPicture for a path that cannot be read or another type.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | os.PathLike):
        path = Path(picture)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise BadPicture(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, the limit; give a smaller file")
            return path.read_bytes()
        except IsADirectoryError:
            raise BadPicture(f"{path} is a folder; give a picture file") from None
        except FileNotFoundError:
            raise BadPicture(f"{path} does not exist") from None
        except OSError as error:
            raise BadPicture(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise BadPicture(f"{str(path)!r} is no path: {error}") from None
    # Asked of the type: a PIL image would be decoded by being asked itself, before its size is checked.
    if hasattr(type(picture), "__array_interface__") or hasattr(type(picture), "__array__"):
        return _pixels(picture)
    raise BadPicture(f"a picture is a path, bytes, a PIL image or an array, not a {type(picture).__qualname__}")


def _pixels(picture: Any) -> bytes:
    from meshkiln.engines.picture.read import raw_picture

    return raw_picture(picture)
