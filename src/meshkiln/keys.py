"""Keys: 256-bit BLAKE3 digests that name computations, over a canonical, type-tagged encoding.

The encoding (version 1; golden vectors in `tests/test_keys.py` pin it). A value is one tag byte and a payload; every
length and count is an unsigned 64-bit big-endian integer, so no two values share an encoding:

    tag  value            payload
    N    None             -
    T F  True, False      -
    i    int              length, two's-complement big-endian bytes, as many as the absolute value's bits // 8 + 1
    f    float            IEEE 754 binary64, big-endian; -0.0 is written as 0.0; NaN and infinities are refused
    s    str              length, UTF-8 bytes, as given (no Unicode normalisation)
    b    bytes            length, bytes
    l    list or tuple    count, the items
    d    mapping          count, then key and value of each item, in the order of the encoded keys
    a    array            dtype (s), shape (l of i), elements in C order, little-endian (b)
    o    dataclass        qualified name (s), the fields as a mapping (d)

What a digest is taken over is separated by domain through BLAKE3's key derivation mode, so that a picture, a stage's
key and a stage's output can never collide by construction.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NewType

from blake3 import blake3

Key = NewType("Key", bytes)
"""32 bytes naming a computation (or a source)."""
Digest = NewType("Digest", bytes)
"""32 bytes: BLAKE3-256 of some bytes."""

_STAGE = "meshkiln 2026-11 stage key, encoding 1"
_SOURCE = "meshkiln 2026-11 source, encoding 1"
_OUTPUT = "meshkiln 2026-11 output of a cut-off stage, encoding 1"
_CALL = "meshkiln 2026-11 function call, encoding 1"


def digest(data: bytes | memoryview) -> Digest:
    """BLAKE3-256 of `data`, plain: what `b3sum` prints. The strong ETag of an artifact."""
    return Digest(blake3(data).digest())


def source_key(data: bytes | memoryview) -> Key:
    """The key of a request's raw input: the bytes of a picture file as they came."""
    return Key(blake3(data, derive_key_context=_SOURCE).digest())


def output_key(output: Digest) -> Key:
    """The key that stages after an early cut-off hang on: it names an output, whatever it was made from."""
    return Key(blake3(output, derive_key_context=_OUTPUT).digest())


def stage_key(
    fingerprint: Sequence[Any], parameters: Mapping[str, Any], inputs: Sequence[Key], namespace: str = ""
) -> Key:
    """The key of one stage's computation.

    fingerprint : the stage's identity: id, version, weights digest, numeric class
    parameters : canonical values of the parameters that matter to the stage, and no others
    inputs : keys of all it reads, in the order it reads them
    namespace : keeps tenants apart; the default is shared by all
    """
    return _key(_STAGE, [namespace, list(fingerprint), dict(parameters), list(inputs)])


def call_key(function: str, version: str, arguments: Mapping[str, Any], namespace: str = "") -> Key:
    """The key of calling `function` (a qualified name) of `version` with `arguments` (bound, defaults applied)."""
    return _key(_CALL, [namespace, function, version, dict(arguments)])


def _key(context: str, value: Any) -> Key:
    return Key(blake3(encode(value), derive_key_context=context).digest())


def encode(value: Any) -> bytes:
    """The canonical encoding of `value`, as the module's table states it.

    Raises TypeError for a type that is not in the table and ValueError for NaN or an infinity: an unsupported value
    is an error, never its `repr`.
    """
    out = bytearray()
    _encode(value, out, "value")
    return bytes(out)


def _encode(value: Any, out: bytearray, where: str) -> None:
    if value is None:
        out += b"N"
    elif value is True or value is False:
        out += b"T" if value else b"F"
    elif isinstance(value, int):
        # bit_length + 1 leaves room for the sign; int.to_bytes is two's complement when signed.
        raw = int(value).to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
        _tagged(b"i", raw, out)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: only finite numbers can be part of a key")
        out += b"f" + struct.pack(">d", value + 0.0)  # -0.0 + 0.0 is 0.0
    elif isinstance(value, str):
        _tagged(b"s", value.encode(), out)
    elif isinstance(value, bytes | bytearray):
        _tagged(b"b", bytes(value), out)
    elif isinstance(value, list | tuple):
        out += b"l" + struct.pack(">Q", len(value))
        for index, item in enumerate(value):
            _encode(item, out, f"{where}[{index}]")
    elif isinstance(value, Mapping):
        _encode_mapping(value, out, where)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        out += b"o"
        kind = type(value)
        _encode(f"{kind.__module__}.{kind.__qualname__}", out, where)
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        _encode_mapping(fields, out, where)
    elif type(value).__module__ == "numpy":
        _encode_array(value, out, where)
    else:
        raise TypeError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which has no canonical encoding; "
            "use None, bool, int, float, str, bytes, list, dict, a numpy array or a dataclass of these"
        )


def _tagged(tag: bytes, payload: bytes, out: bytearray) -> None:
    out += tag + struct.pack(">Q", len(payload)) + payload


def _encode_mapping(value: Mapping[Any, Any], out: bytearray, where: str) -> None:
    items = []
    for name, item in value.items():
        encoded_name, encoded_item = bytearray(), bytearray()
        _encode(name, encoded_name, f"a key of {where}")
        _encode(item, encoded_item, f"{where}[{name!r}]")
        items.append((bytes(encoded_name), bytes(encoded_item)))
    items.sort()
    out += b"d" + struct.pack(">Q", len(items))
    for encoded_name_, encoded_item_ in items:
        out += encoded_name_ + encoded_item_


def _encode_array(value: Any, out: bytearray, where: str) -> None:
    import numpy as np  # only a caller who has numpy can bring an array here

    if isinstance(value, np.generic) and value.dtype.kind in "biufSU":
        plain = value.item()
        # A numpy scalar is the Python value it stands for, so that np.float64(1) and 1.0 make one key. Those that stand
        # for none (dates, durations, long doubles, records) are refused below, although some pass for a number.
        if isinstance(plain, bool | int | float | str | bytes):
            _encode(plain, out, where)
            return
    if type(value) is not np.ndarray or value.dtype.hasobject or value.dtype.kind not in "biufcSU":
        raise TypeError(
            f"{where} is a {type(value).__qualname__} of {value.dtype}; only plain arrays can be part of a key"
        )
    little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    out += b"a"
    _encode(little.dtype.str.lstrip("<|="), out, where)
    _encode(list(value.shape), out, where)
    _tagged(b"b", little.tobytes(), out)
