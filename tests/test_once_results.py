"""What `once` keeps: results that come back as they were, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkiln.engines.function import ARRAYS, BYTES, JSON, TEXT, pack_result, unpack_result
from meshkiln.store.base import Store

Decorate = Callable[..., Callable[[Callable[..., Any]], Any]]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return repr(a) == repr(b)


@given(json_values | st.binary())
def test_results_come_back_with_their_values_types_and_order(result: Any) -> None:
    assert _same(unpack_result(*pack_result(result, "f")), result)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        np.array(2.5),
        np.zeros((0, 3), np.float32),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.array([np.nan, np.inf], np.float16),
        np.ones(2, np.complex64),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_alone_or_named(array: np.ndarray[Any, Any]) -> None:
    data, media_type = pack_result(array, "f")
    assert media_type == ARRAYS
    back = unpack_result(data, media_type)
    named = unpack_result(*pack_result({"x": array, "y": array}, "f"))
    assert list(named) == ["x", "y"]
    for one in (back, named["x"], named["y"]):
        assert (one.shape, one.dtype) == (array.shape, array.dtype.newbyteorder("="))
        np.testing.assert_array_equal(one, array)


@pytest.mark.parametrize(
    ("result", "media_type"), [(b"", BYTES), ("", TEXT), ({}, JSON), (None, JSON), ([b"".decode()], JSON)]
)
def test_media_types_say_what_is_kept(result: Any, media_type: str) -> None:
    assert pack_result(result, "f")[1] == media_type


@pytest.mark.parametrize(
    ("result", "kind", "text"),
    [
        ((1, 2), TypeError, "what .*paint returned is a builtins.tuple"),
        (object(), TypeError, "what .*paint returned is a builtins.object"),
        (bytearray(b"x"), TypeError, "bytearray"),
        ({"a": {1: 2}}, TypeError, r"\['a'\] has the key 1"),
        ({"a": [np.float64(1)]}, TypeError, r"\['a'\]\[0\] is a numpy.float64"),
        ({"a": np.ones(1), "b": 2}, TypeError, r"\['a'\] is a numpy.ndarray"),
        ({"": np.ones(1)}, TypeError, "not empty"),
        (np.array(["a"]), TypeError, "array '' is of <U1"),
        (np.array([1], complex), TypeError, "complex128"),
        ([float("inf")], ValueError, r"\[0\] is inf"),
    ],
)
def test_a_result_that_would_not_come_back_as_it_was_is_refused(
    decorate: Decorate, store: Store, result: object, kind: type[Exception], text: str
) -> None:
    @decorate()
    def paint() -> object:
        return result

    with pytest.raises(kind, match=text):
        paint()
    assert len(store) == 0
