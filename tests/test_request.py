"""A request in canonical form, and its chain of keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy
from meshkiln.engines.base import PICTURE, Engine, Parameter, Stage
from meshkiln.engines.inflate import ENGINE as INFLATE
from meshkiln.errors import BadParameter, BadPicture
from meshkiln.keys import Digest, Key, digest
from meshkiln.request import Link, canonical_request, chain, picture_bytes

parameters = st.fixed_dictionaries(
    {},
    optional={
        "scale": st.integers(0, 10) | st.floats(0, 10),
        "steps": st.integers(1, 50) | st.integers(1, 50).map(float),
        "seed": st.integers(0, 2**32 - 1),
        "format": st.sampled_from(["glb", "stl"]),
    },
)


def recorded(key: Key) -> Digest:
    """Every cut-off is known, and made something of its own."""
    return digest(key)


def links(given_: dict[str, Any], picture: bytes = b"cat", namespace: str = "") -> tuple[Link, ...]:
    return chain(canonical_request(toy.ENGINE, picture, given_, namespace=namespace), recorded)


@given(parameters)
def test_equal_requests_have_equal_chains(given_: dict[str, Any]) -> None:
    defaults = {parameter.name: parameter.default for parameter in toy.ENGINE.parameters}
    spelled_out = dict(reversed((defaults | given_).items()))
    as_floats = {n: float(v) if isinstance(v, int) and v < 2**53 else v for n, v in given_.items()}
    assert links(given_) == links(spelled_out) == links(as_floats)


@given(parameters, st.sampled_from(["scale", "steps", "seed", "format"]), st.data())
def test_a_parameter_changes_the_keys_from_its_stage_on_and_none_before(
    given_: dict[str, Any], name: str, data: st.DataObject
) -> None:
    before = links(given_)
    changed = {**given_, **data.draw(parameters.filter(lambda other: name in other))}
    changed = {**given_, name: changed[name]}
    after = links(changed)
    first = next(i for i, stage in enumerate(toy.ENGINE.stages) if name in stage.parameters)
    same = toy.ENGINE.canonical(given_)[name] == toy.ENGINE.canonical(changed)[name]
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        assert (one.key == other.key) == (same or index < first)


def test_two_files_of_the_same_pixels_meet_after_the_cut_off() -> None:
    def same_output(key: Key) -> Digest:
        return digest(b"the same pixels")

    one = chain(canonical_request(toy.ENGINE, b"cat|png", {}), same_output)
    other = chain(canonical_request(toy.ENGINE, b"cat|webp", {}), same_output)
    assert one[0].key != other[0].key
    assert one[1:] == other[1:]


def test_a_chain_is_known_as_far_as_the_next_unrecorded_cut_off() -> None:
    unknown = chain(canonical_request(toy.ENGINE, b"cat", {}), lambda key: None)
    assert unknown[0].key is not None
    assert unknown[0].output is None
    assert [link.key for link in unknown[1:]] == [None, None, None]


def test_picture_namespace_and_fingerprint_each_change_every_key() -> None:
    base = links({})
    for other in (links({}, picture=b"dog"), links({}, namespace="tenant")):
        assert all(one.key != two.key for one, two in zip(base, other, strict=True))


def test_a_parameter_that_matters_only_to_some_formats_is_in_their_keys_only() -> None:
    def export_key(**given_: Any) -> Key | None:
        return chain(canonical_request(INFLATE, b"cat", given_), recorded)[-1].key

    assert export_key(format="glb", size=50) == export_key(format="glb", size=80)
    assert export_key(format="stl", size=50) != export_key(format="stl", size=80)


def test_recipes_resolve_to_parameters_and_are_in_no_key() -> None:
    by_name = canonical_request(toy.ENGINE, b"cat", {"seed": 3}, recipe="fast")
    by_hand = canonical_request(toy.ENGINE, b"cat", {"seed": 3, "steps": 1})
    assert by_name == by_hand
    assert canonical_request(toy.ENGINE, b"cat", {"steps": 7}, recipe="fast").parameters["steps"] == 7
    with pytest.raises(BadParameter, match="fast, reference"):
        canonical_request(toy.ENGINE, b"cat", {}, recipe="slow")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"stepz": 5}, "format, scale, seed, steps"),
        ({"steps": 51}, "from 1 to 50"),
        ({"steps": 1.5}, "whole number"),
        ({"steps": "5"}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"scale": float("nan")}, "from 0 to 10"),
        ({"scale": float("inf")}, "from 0 to 10"),
        ({"scale": -1}, "from 0 to 10"),
        ({"format": "doc"}, "glb, stl"),
        ({"format": 3}, "glb, stl"),
    ],
)
def test_bad_parameters_are_refused_naming_what_is_allowed(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(BadParameter, match=says):
        canonical_request(toy.ENGINE, b"cat", bad)


@given(st.integers() | st.floats(allow_nan=True) | st.text() | st.none() | st.booleans() | st.binary())
def test_canonical_never_lets_a_value_out_of_range_through(value: object) -> None:
    parameter = Parameter("p", 2.0, "", 0.0, 10.0)
    try:
        result = parameter.canonical(value)
    except BadParameter:
        return
    assert isinstance(result, float)
    assert 0 <= result <= 10


def test_an_engine_whose_stages_do_not_line_up_is_refused_when_it_is_described() -> None:
    with pytest.raises(ValueError, match="reads grow"):
        Engine("e", "", (Stage("a", "a", 1, "m:f", ("grow",)),), ())
    with pytest.raises(ValueError, match="seed"):
        Engine("e", "", (Stage("a", "a", 1, "m:f", (PICTURE,), ("seed",)),), ())


def test_pictures_come_as_path_bytes_array_or_pil_image(tmp_path: Any) -> None:
    path = tmp_path / "cat"
    path.write_bytes(b"cat")
    assert picture_bytes(path) == picture_bytes(str(path)) == picture_bytes(bytearray(b"cat")) == b"cat"
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255
    from PIL import Image

    assert picture_bytes(pixels) == picture_bytes(Image.fromarray(pixels))
    with pytest.raises(BadPicture, match="not a dict"):
        picture_bytes({})
    with pytest.raises(BadPicture, match="does not exist"):
        picture_bytes(tmp_path / "dog")
    with pytest.raises(BadPicture, match="folder"):
        picture_bytes(tmp_path)
