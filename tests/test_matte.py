from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import canary
import pictures
from meshkiln.engines.base import Work
from meshkiln.engines.picture import MATTE
from meshkiln.engines.picture.matte import cut_out, reduced
from meshkiln.errors import BadPicture

WHITE, GREY = (255, 255, 255), (128, 128, 128)


def opaque(pixels: pictures.Pixels) -> pictures.Pixels:
    return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])


def mask_of(pixels: pictures.Pixels, how: str = "auto") -> pictures.Mask:
    return np.asarray(cut_out(pixels, how)[..., 3] >= 128)


def test_matte_is_a_stage_whose_items_know_nothing_of_one_another() -> None:
    inputs = [opaque(pictures.painted(pictures.ring(64), (200, 40, 30), ground)) for ground in (WHITE, GREY)]
    inputs.append(opaque(pictures.painted(pictures.mug(64), (60, 60, 220), pictures.foliage(64, 64))))
    works = [Work(({"pixels": pixels},), {"matte": "auto"}) for pixels in inputs]
    compute = MATTE.load()
    together = compute(works)
    for work, value in zip(reversed(works), reversed(together), strict=True):
        (alone,) = compute([work])
        assert isinstance(value, dict)
        assert isinstance(alone, dict)
        np.testing.assert_array_equal(alone["pixels"], value["pixels"])


def test_an_alpha_channel_is_taken_as_it_is() -> None:
    pixels = pictures.gradient(64, 64, alpha=True)
    pixels[pixels[..., 3] == 0] = 0
    np.testing.assert_array_equal(cut_out(pixels), pixels)


def test_an_opaque_picture_is_all_subject_when_alpha_is_asked_for() -> None:
    assert mask_of(opaque(pictures.gradient()), "alpha").all()


def test_rounded_corners_are_no_cut_out() -> None:
    mask = pictures.ring(128)
    pixels = opaque(pictures.painted(mask, (200, 40, 30), WHITE))
    pixels[:4, :4] = 0
    assert pictures.iou(mask_of(pixels), mask) > 0.95


@pytest.mark.parametrize("shape", [pictures.ring, pictures.mug])
@pytest.mark.parametrize("ground", [WHITE, GREY, (20, 30, 60)])
def test_plain_grounds_and_the_holes_one_sees_them_through(shape: Any, ground: tuple[int, int, int]) -> None:
    mask = shape(256)
    found = mask_of(opaque(pictures.painted(mask, (200, 120, 40), ground)))
    assert pictures.iou(found, mask) > 0.96
    assert not found[128, 128 if shape is pictures.ring else 188]


def test_a_hole_with_a_blurred_rim_is_a_hole() -> None:
    mask = pictures.ring(256)
    painted = pictures.painted(mask, (200, 120, 40), (127, 127, 127))
    blurred = cv2.GaussianBlur(painted, (0, 0), 2.5)
    found = mask_of(opaque(blurred))
    assert pictures.iou(found, mask) > 0.9
    assert not found[128, 128]


def test_a_soft_shadow_is_not_part_of_the_subject() -> None:
    mask = pictures.ring(256, outer=0.25, inner=0)
    y, x = np.mgrid[:256, :256]
    shadow = 0.6 * np.exp(-(((x - 140) / 70) ** 2) - ((y - 190) / 22) ** 2)
    ground = np.rint(215 * (1 - shadow))[..., None].repeat(3, axis=2).astype(np.uint8)
    found = mask_of(opaque(pictures.painted(mask, (200, 60, 40), ground)))
    assert pictures.iou(found, mask) > 0.95


def test_shading_that_crosses_the_ground_s_grey_makes_no_hole() -> None:
    mask = pictures.ring(256, inner=0)
    y, x = np.mgrid[:256, :256]
    ball = 50 + 180 * np.exp(-(((x - 128) / 60) ** 2) - ((y - 120) / 60) ** 2)
    pixels = np.where(mask, ball, 128)[..., None].repeat(3, axis=2).astype(np.uint8)
    assert pictures.iou(mask_of(opaque(pixels)), mask) > 0.95


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_natural_ground(seed: int) -> None:
    mask = pictures.ring(256, outer=0.3, inner=0)
    pixels = pictures.painted(mask, (210, 60, 50), pictures.foliage(256, 256, seed))
    assert pictures.iou(mask_of(opaque(pixels)), mask) > 0.9


def test_letterbox_bars_are_no_background() -> None:
    mask = pictures.ring(256, outer=0.25, inner=0)
    pixels = pictures.painted(mask, (210, 60, 50), pictures.foliage())
    pixels[:40] = pixels[-40:] = 0
    assert pictures.iou(mask_of(opaque(pixels)), mask) > 0.9


def test_a_subject_one_pixel_wide() -> None:
    line = np.zeros((64, 64), bool)
    line[8:56, 30] = True
    black = np.full((64, 64, 3), 255, np.uint8)
    black[line] = 0
    np.testing.assert_array_equal(mask_of(opaque(black)), line)
    clear = np.dstack([black, np.where(line, 255, 0).astype(np.uint8)])
    np.testing.assert_array_equal(mask_of(clear), line)


def test_soft_edges_carry_the_subject_s_colour_not_the_ground_s() -> None:
    mask = pictures.ring(256, outer=0.35, inner=0)
    pixels = cut_out(opaque(pictures.painted(mask, (220, 40, 30), (30, 220, 40))))
    alpha = pixels[..., 3]
    soft = (alpha > 25) & (alpha < 230)
    assert soft.sum() > 200
    red, green = pixels[soft][:, 0].astype(int), pixels[soft][:, 1].astype(int)
    assert np.mean(green > red) < 0.02


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_picture_of_nothing_has_no_subject(colour: int) -> None:
    with pytest.raises(BadPicture, match="no subject found"):
        cut_out(opaque(np.full((64, 64, 3), colour, np.uint8)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2)])
def test_tiny_pictures_are_cut_out_or_refused(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    try:
        assert cut_out(opaque(noise)).shape == (*shape, 4)
    except BadPicture:
        return


@pytest.mark.parametrize("bar", [0, 255])
def test_bars_that_leave_no_line_between_them_are_none(bar: int) -> None:
    pixels = np.full((4, 173, 3), bar, np.uint8)
    pixels[1:3] = (90, 140, 60)
    try:
        assert cut_out(opaque(pixels)).shape == (4, 173, 4)
    except BadPicture:
        return


def test_fully_or_mostly_transparent_pictures_are_refused() -> None:
    with pytest.raises(BadPicture, match="fully transparent"):
        cut_out(np.zeros((8, 8, 4), np.uint8))
    with pytest.raises(BadPicture, match="half opaque"):
        cut_out(np.full((8, 8, 4), 60, np.uint8))


@pytest.mark.parametrize("shape", [(2000, 1500), (1025, 3), (6, 5000), (2047, 1024)])
def test_large_pictures_are_reduced_by_area(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, 4), np.uint8)
    small = reduced(pixels)
    assert max(small.shape[:2]) == 1024
    weight = pixels[..., 3:] / 255.0
    before = (pixels[..., :3] * weight).mean(axis=(0, 1))
    after = (small[..., :3] * (small[..., 3:] / 255.0)).mean(axis=(0, 1))
    np.testing.assert_allclose(after, before, atol=1.0)
    half = reduced(pixels[:1000, :1500], 500)
    expected = Image.fromarray(pixels[:1000, :1500]).reduce(3) if half.shape == (334, 500, 4) else None
    assert expected is None or expected.size == (500, 334)


def test_a_reduced_cut_out_keeps_its_opaque_colour() -> None:
    pixels = np.zeros((3000, 3000, 4), np.uint8)
    pixels[700:2300, 701:2299] = (200, 100, 50, 255)
    small = reduced(pixels)
    shown = small[small[..., 3] > 0]
    assert np.abs(shown[:, :3].astype(int) - (200, 100, 50)).max() <= 1
    assert abs(small[..., 3].mean() - pixels[..., 3].mean()) < 0.5


def test_canary() -> None:
    cases = {
        "ring on white": pictures.painted(pictures.ring(48), (200, 120, 40), WHITE),
        "mug on grey": pictures.painted(pictures.mug(64), (40, 80, 200), GREY),
        "disc in foliage": pictures.painted(pictures.ring(64, 0.3, 0), (210, 60, 50), pictures.foliage(64, 64)),
    }
    values = MATTE.load()([Work(({"pixels": opaque(pixels)},), {"matte": "auto"}) for pixels in cases.values()])

    def close(recorded: dict[str, Any], now: dict[str, Any]) -> bool:
        # Colours where either is transparent are whatever was blurred over: compared premultiplied.
        a, b = (value["pixels"].astype(float) for value in (recorded, now))
        apart = np.abs(a[..., :3] * a[..., 3:] / 255 - b[..., :3] * b[..., 3:] / 255).mean()
        return a.shape == b.shape and apart < 0.5 and np.abs(a[..., 3] - b[..., 3]).mean() < 0.5

    canary.check(MATTE, dict(zip(cases, values, strict=True)), close)
