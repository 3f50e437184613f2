"""The encoding is pinned by golden vectors: a key changes only on purpose."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkiln.keys import call_key, digest, encode, output_key, source_key, stage_key

GOLDEN_ENCODINGS = [
    (None, "4e"),
    (True, "54"),
    (False, "46"),
    (0, "69000000000000000100"),
    (-1, "690000000000000001ff"),
    (128, "6900000000000000020080"),
    (-128, "690000000000000002ff80"),
    (1.0, "663ff0000000000000"),
    (-0.0, "660000000000000000"),
    ("ä", "730000000000000002c3a4"),
    (b"\x00", "62000000000000000100"),
    ([1], "6c000000000000000169000000000000000101"),
    ({"b": 1, "a": None}, "640000000000000002730000000000000001614e7300000000000000016269000000000000000101"),
    (
        np.array([[1, 2]], dtype=">u2"),
        "6173000000000000000275326c0000000000000002690000000000000001016900000000000000010262000000000000000401000200",
    ),
]


@pytest.mark.parametrize(("value", "expected"), GOLDEN_ENCODINGS, ids=lambda v: repr(v)[:30])
def test_encoding_matches_golden_vector(value: object, expected: str) -> None:
    assert encode(value).hex() == expected


def test_keys_match_golden_vectors() -> None:
    assert (
        digest(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    )  # BLAKE3's own vector
    assert source_key(b"picture").hex() == SOURCE
    assert output_key(digest(b"pixels")).hex() == OUTPUT
    inputs = [source_key(b"picture")]
    assert stage_key(("meshkiln.read", 1, "", "exact"), {}, inputs).hex() == STAGE
    assert (
        stage_key(("meshkiln.sample", 2, "ab", "fp32"), {"steps": 50, "scale": 2.0}, inputs, "tenant").hex() == TENANT
    )
    assert call_key("module.f", "1", {"x": 1}).hex() == CALL


SOURCE = "68a4109df8b41c7cb9d1a01b1d0d5336758cc7616f46dc45a03cbc352d3695ea"
OUTPUT = "965e18cf819b9bded0f2e733b25263ab9dbff1770476419637f0e68e7c5ab241"
STAGE = "f5bbdbdf0625bd3d15f860b81f8b40b518a351507ffefe334168f852ef9181f7"
TENANT = "038585818b8139929db122da63df7127ccbaf91632eea1305f43f26750c82adb"
CALL = "108027d745ad19f45c702a1ff97e66fd7f37d330f2f48c0a73d0de731e530e29"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def _shape(value: object) -> object:
    """What the encoding promises to tell apart: type and value, with -0.0 as 0.0."""
    if isinstance(value, list):
        return ("list", tuple(_shape(item) for item in value))
    if isinstance(value, dict):
        return ("dict", frozenset((name, _shape(item)) for name, item in value.items()))
    if isinstance(value, float):
        return ("float", value + 0.0)
    return (type(value).__name__, value)


@given(values, values)
def test_encodings_are_equal_exactly_when_values_are(one: object, other: object) -> None:
    assert (encode(one) == encode(other)) == (_shape(one) == _shape(other))


@given(st.lists(values, min_size=2, max_size=2))
def test_no_encoding_is_a_prefix_of_another(pair: list[object]) -> None:
    one, other = encode(pair[0]), encode(pair[1])
    assert one == other or not one.startswith(other)


@given(st.dictionaries(st.text(), scalars, min_size=2))
def test_order_of_a_mapping_does_not_matter(mapping: dict[str, object]) -> None:
    assert encode(mapping) == encode(dict(reversed(mapping.items())))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        encode({"x": [value]})


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        1j,
        np.array([object()]),
        lambda: None,
        memoryview(np.array([1, 0])),
        np.datetime64(5, "ns"),
        np.timedelta64(5, "ns"),
        np.longdouble(1),
        np.ma.masked_array([1], [True]),
    ],
)
def test_types_without_an_encoding_are_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=r"value\['x'\]"):
        encode({"x": value})


def test_array_layout_does_not_matter_but_type_and_shape_do() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert encode(np.asfortranarray(array)) == encode(array)
    assert encode(array.astype(">f4")) == encode(array)
    assert encode(array.reshape(3, 2)) != encode(array)
    assert encode(array.astype(np.float64)) != encode(array)
    assert encode(np.float64(1)) == encode(1.0)


def test_dataclasses_are_told_apart_by_name() -> None:
    @dataclasses.dataclass
    class One:
        x: int = 1

    @dataclasses.dataclass
    class Other:
        x: int = 1

    assert encode(One()) == encode(One(1))
    assert encode(One()) != encode(Other())


def test_domains_are_separated() -> None:
    data = b"\x00" * 32
    assert len({bytes(digest(data)), source_key(data), output_key(digest(data))}) == 3


def test_namespace_changes_every_stage_key() -> None:
    fingerprint, inputs = ("s", 1, "", "exact"), [source_key(b"")]
    assert stage_key(fingerprint, {}, inputs) != stage_key(fingerprint, {}, inputs, "tenant")
