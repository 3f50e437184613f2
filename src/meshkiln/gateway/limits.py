"""Limits of a server's own on what requests may ask for: engines with narrower parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

from meshkiln.engines.base import Engine, Parameter
from meshkiln.errors import BadParameter


def limited(kinds: Mapping[str, Engine], limits: Iterable[str]) -> dict[str, Engine]:
    """Engines whose parameters are at most what `limits` say, each written as "name=number".

    A default that is more becomes the limit, and recipes that ask for more are not offered. No key depends on a limit.
    Raises BadParameter for what is not written so, names no number of any engine, or allows nothing.
    """
    most = dict(map(_parsed, limits))
    for name in most:
        if not any(
            _numeric(parameter) and parameter.name == name for e in kinds.values() for parameter in e.parameters
        ):
            raise BadParameter(f"limits: {name!r} is not a number that any served engine takes")
    return {name: _limited(kind, most) for name, kind in kinds.items()}


def _limited(kind: Engine, most: Mapping[str, float]) -> Engine:
    parameters = tuple(_narrower(parameter, most.get(parameter.name)) for parameter in kind.parameters)
    high = {parameter.name: parameter.high for parameter in parameters if parameter.name in most}
    recipes = {
        name: recipe
        for name, recipe in kind.recipes.items()
        if not any(cast(float, value) > (high.get(given) or float("inf")) for given, value in _numbers(recipe))
    }
    return replace(kind, parameters=parameters, recipes=recipes)


def _narrower(parameter: Parameter, most: float | None) -> Parameter:
    if most is None or not _numeric(parameter):
        return parameter
    low, high = parameter.low, parameter.high
    if low is not None and most < low:
        raise BadParameter(f"limits: {parameter.name}={most:g} allows nothing; it is at least {low:g}")
    high = most if high is None else min(high, most)
    kind = type(parameter.default)
    return replace(parameter, high=high, default=kind(min(cast(float, parameter.default), high)))


def _numbers(recipe: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    return ((name, value) for name, value in recipe.items() if type(value) in (int, float))


def _numeric(parameter: Parameter) -> bool:
    return type(parameter.default) in (int, float)


def _parsed(limit: str) -> tuple[str, float]:
    name, _, text = limit.partition("=")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -float("inf") < value < float("inf"):
        raise BadParameter(f"limits: {limit!r} is not a name, = and a number, such as steps=20")
    return name.strip(), value
