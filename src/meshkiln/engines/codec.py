"""Between values and bytes: named arrays as safetensors (deterministic, no pickle), bytes as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkiln.engines.base import Value

ARRAYS = "application/vnd.safetensors"


def pack(value: Value) -> bytes:
    """The bytes a store holds for `value`; equal values have equal bytes."""
    if isinstance(value, bytes):
        return value
    import numpy as np
    from safetensors.numpy import save

    if "__metadata__" in value:
        raise ValueError("an array cannot be named __metadata__: safetensors keeps that name for itself")

    return bytes(save({name: np.asarray(array, order="C") for name, array in value.items()}))


def unpack(data: bytes, media_type: str) -> Value:
    """The value that `pack` made `data` from. Raises ValueError when `data` is not of that type."""
    if media_type != ARRAYS:
        return data
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except SafetensorError as error:
        raise ValueError(f"not an arrays artifact: {error}") from error
