"""The function engine: any expensive function, its calls named by keys and its results kept as bytes.

A call's key holds the function's name and version and its arguments, bound and with defaults applied. Results are

    bytes                     application/octet-stream
    str                       text/plain; charset=utf-8
    numpy array, dict of them application/vnd.safetensors
    JSON value                application/json (None, bool, int, float, list, dict with str keys)

and nothing else: a value that would come back as something different (a tuple as a list) is refused, and nothing is
ever pickled. A dict of arrays comes back in the order of its names.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from meshkiln.engines.codec import ARRAYS, pack, unpack
from meshkiln.keys import Key, call_key, encode

BYTES = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_SINGLE = ""
"""Name under which a lone array is packed; arrays in a dict have names that are not empty."""


def function_name(function: Callable[..., Any]) -> str:
    """The name that keys know `function` by: its module and qualified name.

    Two scripts may well have a `generate` each, so a script's functions go by the script's real path.
    Raises TypeError for what has no name of its own: a lambda, an object, a bound method, a function typed in.
    """
    if inspect.ismethod(function):
        raise TypeError(f"{function!r} is bound to an object that its key would not show; wrap the plain function")
    name = getattr(function, "__qualname__", "<no name>")
    if not inspect.isroutine(function) or name.endswith(">") or function.__module__ is None:
        raise TypeError(f"{function!r} has no name that tells it from others; define it with def, or give name=")
    module = function.__module__
    if module in ("__main__", "__mp_main__"):
        main = sys.modules[module]
        spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is not None:
            module = spec.name
        elif path is not None:
            module = os.path.realpath(path)
        else:
            raise TypeError(f"{name} was typed in, and so may be another function of that name: give name=")
    return f"{module}.{name}"


def bind(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments in canonical form: defaults applied, and whole numbers as floats where a float is declared.

    The function is called with these, so that what is computed is what the key says.
    """
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        declared = signature.parameters[name]
        variadic = declared.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        # Beyond 2**53 two whole numbers may share a float.
        if declared.annotation in (float, "float") and not variadic and type(value) is int and abs(value) <= 2**53:
            bound.arguments[name] = float(value)
    return bound


def function_key(name: str, version: str, bound: inspect.BoundArguments, namespace: str = "") -> Key:
    """The key of a call. Raises TypeError or ValueError, naming the argument, for one that cannot be part of a key."""
    try:
        return call_key(name, version, bound.arguments, namespace)
    except (TypeError, ValueError):
        for argument, value in bound.arguments.items():
            try:
                encode(value)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"argument {argument!r} of {name}: {error}") from None
        raise


def pack_result(result: object, name: str) -> tuple[bytes, str]:
    """The bytes and media type of what function `name` returned. Raises TypeError for what is not kept."""
    if type(result) is bytes:
        return result, BYTES
    if type(result) is str:
        return result.encode(), TEXT
    arrays = _as_arrays(result)
    if arrays is not None:
        return pack(arrays), ARRAYS
    _check_json(result, f"what {name} returned")
    return json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(), JSON


def unpack_result(data: bytes, media_type: str) -> Any:
    """What `pack_result` packed: equal, of the same types, and the caller's own to change. Arrays come by name."""
    if media_type == BYTES:
        return data
    if media_type == TEXT:
        return data.decode()
    if media_type == JSON:
        return json.loads(data)
    arrays = unpack(data, media_type)
    if not isinstance(arrays, dict):
        raise ValueError(f"{media_type} is not a media type of function results")
    # safetensors keeps the names, not their order.
    return arrays[_SINGLE] if set(arrays) == {_SINGLE} else dict(sorted(arrays.items()))


def _as_arrays(result: Any) -> dict[str, Any] | None:
    """`result` as named arrays, or None when it is something else."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None  # nobody has made an array yet
    if type(result) is numpy.ndarray:
        named = {_SINGLE: result}
    elif type(result) is dict and result and all(type(value) is numpy.ndarray for value in result.values()):
        named = result
        for name in named:
            if type(name) is not str or not name:
                raise TypeError(f"arrays are returned under names that are strings and not empty, not {name!r}")
    else:
        return None
    for name, array in named.items():
        if array.dtype.kind not in "biufc" or array.dtype.itemsize > 8:
            raise TypeError(f"array {name!r} is of {array.dtype}, which safetensors does not hold")
    return named


def _check_json(value: Any, where: str) -> None:
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return
    if kind is float:
        if value - value != 0.0:
            raise ValueError(f"{where} is {value}, which JSON does not hold; return an array, or None")
    elif kind is list:
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]")
    elif kind is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise TypeError(f"{where} has the key {name!r}; the keys of a dict that is kept are strings")
            _check_json(item, f"{where}[{name!r}]")
    else:
        raise TypeError(
            f"{where} is a {kind.__module__}.{kind.__qualname__}; only bytes, str, numpy arrays, dicts of arrays and "
            "JSON values (None, bool, int, float, list, dict) are kept"
        )
