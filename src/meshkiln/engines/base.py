"""What a stage and an engine are. A description is a value: it imports without the runtime that computes.

A third-party engine registers an `Engine` under the entry-point group `meshkiln.engines`.

Between the stages of one process values pass as they are: a dict of named numpy arrays, or bytes. Stores hold bytes:
`meshkiln.engines.codec` packs and unpacks. A stage's function is named by import path and loaded when it first runs:

    def compute(batch: Sequence[Work]) -> list[Value]: ...

It has no side effects, and its result for an item depends on that item alone, never on its batch mates. A module that
has something to load before it can compute (weights) may have a function `warm()`, which workers call when they start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from meshkiln.errors import BadParameter, UnknownEngine

if TYPE_CHECKING:
    import numpy as np

    Value = dict[str, np.ndarray[Any, Any]] | bytes

Scalar = bool | int | float | str
PICTURE = "picture"
"""What the first stage reads: the request's raw input."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a request: its type, default and range; `canonical` is the only way in.

    low, high : inclusive bounds of an int or float, in `unit`
    choices : allowed values of a str
    refused : of those somebody could expect besides, each with why it is not offered
    """

    name: str
    default: Scalar
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    refused: tuple[tuple[str, str], ...] = ()

    def canonical(self, value: object) -> Scalar:
        """`value` as this parameter's type, so that `1` and `1.0` make one key.

        Raises BadParameter, naming the allowed range, for another type or a value outside it.
        """
        kind = type(self.default)
        result: Scalar
        if isinstance(value, int) and abs(value) > 2**63:
            raise BadParameter(f"{self.name} is a number of {len(hex(value))} digits; give {self.allowed()}")
        if kind is bool and isinstance(value, bool):
            result = value
        elif kind is int and _is_number(value) and float(cast(float, value)).is_integer():
            result = int(cast(float, value))
        elif kind is float and _is_number(value):
            result = float(cast(float, value)) + 0.0
        elif kind is str and isinstance(value, str):
            result = value
        else:
            raise BadParameter(f"{self.name}={value!r} is not {self.allowed()}")
        if self.choices and result not in self.choices:
            why = "".join(f": {reason}" for refused, reason in self.refused if refused == result)
            raise BadParameter(f"{self.name}={value!r} is not {self.allowed()}{why}")
        if kind in (int, float):
            number = cast(float, result)
            # Written so that NaN fails too.
            if not ((self.low is None or number >= self.low) and (self.high is None or number <= self.high)):
                raise BadParameter(f"{self.name}={value!r} is not {self.allowed()}")
            if number != number or number in (float("inf"), float("-inf")):
                raise BadParameter(f"{self.name}={value!r} is not {self.allowed()}")
        return result

    def from_text(self, text: str) -> object:
        """What `text` (of a form, a query or a command line) stands for; `canonical` then judges it."""
        words: dict[str, bool] = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False}
        words |= {"no": False, "off": False}
        try:
            if isinstance(self.default, bool):
                return words[text.strip().lower()]
            if isinstance(self.default, int | float):
                return float(text) if isinstance(self.default, float) or not text.strip("+-").isdigit() else int(text)
        except (KeyError, ValueError):
            pass
        return text

    def allowed(self) -> str:
        """What would be right, in words: "a number from 1 to 100"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return "a string"
        noun = "a whole number" if isinstance(self.default, int) else "a number"
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return f"{noun} from {_digits(self.low)} to {_digits(self.high)}{unit}"
        if self.low is not None:
            return f"{noun} of at least {_digits(self.low)}{unit}"
        return f"{noun}{unit}"


def _digits(number: float) -> str:
    """A bound as it is read: 2,000,000, and not 2e+06."""
    return f"{int(number):,}" if float(number).is_integer() else f"{number:g}"


def read_texts(engine: Engine, texts: Mapping[str, str]) -> dict[str, Any]:
    """Parameters given as text, as values of their types; unknown names stay for `Engine.canonical` to refuse."""
    known = {parameter.name: parameter for parameter in engine.parameters}
    return {name: known[name].from_text(text) if name in known else text for name, text in texts.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Work:
    """One item of a batch.

    inputs : one value for each name in the stage's `reads`, in that order
    parameters : canonical values of the parameters that matter to the stage
    report : called with (step, steps) as an iterative stage proceeds
    """

    inputs: tuple[Any, ...]
    parameters: Mapping[str, Scalar]
    report: Callable[[int, int], None] = lambda step, steps: None


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of an engine, without side effects.

    name : its place in the chain ("matte"); `id` names the computation itself and is shared by all engines that use
        it ("meshkiln.matte"), so they share artifacts too
    version : bumped by hand when its output changes; a canary test fails when that was forgotten
    compute : import path "package.module:function" of a `Sequence[Work] -> list[Value]`
    reads : names of the stages it reads, or `PICTURE`
    parameters : names of the parameters that matter to it
    only : of those, the ones that matter only while another has one of some values: (name, other, values)
    weights : hex digest of the weights it computes with; empty when it has none
    numeric : numeric class: "exact" (integer or reproducible arithmetic), "fp32", "bf16", "int8"
    cutoff : later keys hang on the digest of the output instead of on this stage's key (integer outputs only)
    media_type : of the packed output
    batch : the most items `compute` is given at once
    batch_with : names of parameters that must be equal within a batch; the others may differ from item to item. What
        an item costs is learned by them, so those that decide about it belong here also where `batch` is 1
    preview : a stage that makes a picture of this one's output, for people who wait; it reads that alone and has no
        parameters. Not part of any chain
    """

    name: str
    id: str
    version: int
    compute: str
    reads: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    only: tuple[tuple[str, str, tuple[Scalar, ...]], ...] = ()
    weights: str = ""
    numeric: str = "exact"
    cutoff: bool = False
    media_type: str = "application/vnd.safetensors"
    batch: int = 1
    batch_with: tuple[str, ...] = ()
    preview: Stage | None = None

    def mattering(self, parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Of a request's parameters those that matter to this stage: what its key contains and `compute` is given."""
        idle = {name for name, other, values in self.only if parameters[other] not in values}
        return {name: parameters[name] for name in self.parameters if name not in idle}

    @property
    def fingerprint(self) -> tuple[str, int, str, str]:
        """Identity of the computation: what a key contains of the stage itself."""
        return (self.id, self.version, self.weights, self.numeric)

    def load(self) -> Callable[[Sequence[Work]], list[Value]]:
        """The function that computes, imported now."""
        module, _, name = self.compute.partition(":")
        return cast("Callable[[Sequence[Work]], list[Value]]", getattr(import_module(module), name))


@dataclass(frozen=True, slots=True)
class Engine:
    """A model as a fixed line of stages, first to last.

    parameters : every parameter a request may give
    formats : export formats, name -> media type; the parameter `format` chooses
    recipes : name -> parameters it stands for; resolved before keys
    measured : import path "module:function" of what tells, in words, how its runtime was tuned to this machine; it
        measures when that was never done
    limits : what one parameter may be at most while another has one of some values: (name, most, other, values)
    """

    name: str
    help: str
    stages: tuple[Stage, ...]
    parameters: tuple[Parameter, ...]
    formats: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    limits: tuple[tuple[str, float, str, tuple[Scalar, ...]], ...] = ()
    measured: str = ""

    def __post_init__(self) -> None:
        known = {PICTURE}
        for stage in self.stages:
            for name in stage.reads:
                if name not in known:
                    raise ValueError(f"engine {self.name}: {stage.name} reads {name}, which does not come before it")
            known.add(stage.name)
        named = {parameter.name for parameter in self.parameters}
        for stage in self.stages:
            if missing := set(stage.parameters) - named:
                raise ValueError(f"engine {self.name}: {stage.name} wants undeclared parameters {sorted(missing)}")

    def canonical(self, given: Mapping[str, object]) -> dict[str, Scalar]:
        """All parameters, those of `given` checked and the others by default.

        Raises BadParameter for an unknown name (naming those there are) or a value out of range.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                raise BadParameter(
                    f"{name!r} is not a parameter of engine {self.name}; it has {', '.join(sorted(known))}"
                )
        result = {name: p.canonical(given.get(name, p.default)) for name, p in known.items()}
        for name, most, other, values in self.limits:
            if result[other] in values and cast(float, result[name]) > most:
                others = " or ".join(str(choice) for choice in known[other].choices if choice not in values)
                more = f"; {other}={others} takes more" if others else ""
                raise BadParameter(
                    f"{name}={result[name]} is more than {most:g}, the most with {other}={result[other]}{more}"
                )
        return result

    def over_recipe(self, recipe: str | None, given: Mapping[str, object]) -> dict[str, Scalar]:
        """`canonical` of `given` laid over what `recipe` sets; one that there is not sets nothing."""
        return self.canonical({**self.recipes.get(recipe or "", {}), **given})


def engines() -> dict[str, Engine]:
    """Every registered engine by name. One that fails to import is left out here and raises when asked for."""
    found = {}
    for point in entry_points(group="meshkiln.engines"):
        try:
            found[point.name] = cast(Engine, point.load())
        except ImportError:
            continue
    return dict(sorted(found.items()))


def engine(name: str) -> Engine:
    """The engine registered as `name`. Raises UnknownEngine, naming those there are."""
    for point in entry_points(group="meshkiln.engines", name=name):
        return cast(Engine, point.load())
    raise UnknownEngine(f"no engine is called {name!r}; there are {', '.join(engines()) or 'none'}")
