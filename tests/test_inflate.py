"""From silhouettes whose volume is known to photographs' awkward cases: thin, tiny, in parts, with holes."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import canary
from meshkiln.engines.base import Work
from meshkiln.engines.inflate import INFLATE
from meshkiln.engines.inflate.inflate import inflate, volume
from meshkiln.engines.inflate.poisson import solve
from meshkiln.engines.mesh.solid import fault
from meshkiln.engines.mesh.texture import place
from meshkiln.errors import BadPicture


def cutout(alpha):
    """(H, W, 4) uint8 of one colour with the given (H, W) alpha."""
    pixels = np.zeros((*alpha.shape, 4), np.uint8)
    pixels[..., :3] = 150
    pixels[..., 3] = alpha
    return pixels


def disc(size=300, radius=100.0, hole=0.0):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    away = np.hypot(x, y)
    return (np.clip(radius - away + 0.5, 0, 1) * np.clip(away - hole + 0.5, 0, 1) * 255).astype(np.uint8)


def solid(mesh):
    assert fault(mesh["vertices"], mesh["faces"]) == ""
    return trimesh.Trimesh(mesh["vertices"], mesh["faces"], process=False)


def test_a_disc_becomes_a_ball():
    ball = solid(volume(cutout(disc())))
    assert np.abs(np.linalg.norm(ball.vertices, axis=1) - 1).max() < 0.01
    assert ball.volume == pytest.approx(4 / 3 * np.pi, rel=0.01)


def test_the_height_over_a_disc_is_what_theory_says():
    y, x = np.mgrid[:161, :161] - 80.0
    level = (60.3 - np.hypot(x, y)).astype(np.float32)
    exact = 60.3**2 - x**2 - y**2
    inside = level > 0
    assert np.abs(solve(level) - exact)[inside].max() < 0.004 * 60.3**2
    assert (solve(level)[~inside] == 0).all()


def test_a_band_becomes_a_rounded_bar():
    # Across a long band of half width w, −h″ = 4 gives h = 2·(w² − x²): it is √2 times as thick as wide.
    alpha = np.zeros((400, 200), np.uint8)
    alpha[10:390, 80:120] = 255
    bar = solid(volume(cutout(alpha)))
    middle = bar.vertices[np.abs(bar.vertices[:, 1]) < 0.3]
    assert np.ptp(middle[:, 2]) / np.ptp(middle[:, 0]) == pytest.approx(np.sqrt(2), rel=0.03)


def test_a_hole_stays_a_hole():
    ring = solid(volume(cutout(disc(hole=40))))
    assert ring.euler_number == 0
    assert np.hypot(ring.vertices[:, 0], ring.vertices[:, 1]).min() == pytest.approx(0.4, abs=0.02)


def test_a_mug_keeps_its_handle_open():
    alpha = np.zeros((200, 260), np.uint8)
    alpha[20:180, 20:160] = 255
    cv2.ellipse(alpha, (160, 100), (60, 50), 0, -90, 90, 255, 14)
    assert solid(volume(cutout(alpha))).euler_number == 0


def test_parts_stay_apart():
    alpha = np.zeros((200, 300), np.uint8)
    alpha[50:150, 20:120] = 255
    alpha[90:110, 200:220] = 255
    assert solid(volume(cutout(alpha))).body_count == 2


def test_specks_of_the_matte_are_dropped():
    alpha = disc()
    alpha[3:5, 3:5] = 255
    alpha[149:151, 149:151] = 0
    ball = solid(volume(cutout(alpha)))
    assert ball.body_count == 1
    assert ball.euler_number == 2


@pytest.mark.parametrize("line", ["upright", "level", "slanting"])
def test_a_subject_one_pixel_wide(line):
    alpha = np.zeros((500, 500), np.uint8)
    ends = {"upright": ((250, 20), (250, 480)), "level": ((20, 250), (480, 250)), "slanting": ((20, 30), (480, 400))}
    cv2.line(alpha, *ends[line], 255, 1)
    wire = solid(volume(cutout(alpha)))
    assert wire.body_count == 1
    spots = place(wire.vertices, volume(cutout(alpha))["uv_project"]) * 500
    (x0, y0), (x1, y1) = ends[line]
    assert np.abs(spots.min(axis=0) - (x0, y0)).max() < 4
    assert np.abs(spots.max(axis=0) - (x1, y1)).max() < 4


def test_a_single_pixel_is_a_subject():
    alpha = np.zeros((9, 9), np.uint8)
    alpha[4, 4] = 255
    solid(volume(cutout(alpha)))


def test_dots_that_fall_between_the_nodes_of_the_grid_are_refused():
    alpha = np.zeros((3, 192), np.uint8)
    alpha[1, [0, 150]] = 255
    with pytest.raises(BadPicture, match="specks"):
        volume(cutout(alpha))


def test_an_antenna_stays_on_its_head():
    alpha = disc(1000, 300)
    cv2.line(alpha, (500, 210), (560, 40), 255, 2, cv2.LINE_AA)
    head = solid(volume(cutout(alpha)))
    assert head.body_count == 1
    low = place(head.vertices, volume(cutout(alpha))["uv_project"])[:, 1].min() * 1000
    assert low == pytest.approx(40, abs=6)


def test_vertices_know_their_pixels():
    # Off centre in a picture that is not square: the border of the mesh lies on the border of the silhouette.
    alpha = np.zeros((240, 420), np.uint8)
    alpha[30:90, 250:400] = 255
    mesh = volume(cutout(alpha))
    spots = place(mesh["vertices"], mesh["uv_project"]) * (420, 240)
    assert np.abs(spots.min(axis=0) - (250, 30)).max() < 1
    assert np.abs(spots.max(axis=0) - (400, 90)).max() < 1
    assert np.ptp(mesh["vertices"], axis=0).max() == pytest.approx(2, abs=1e-5)


def test_up_in_the_picture_is_up():
    alpha = np.zeros((200, 200), np.uint8)
    alpha[20:40, 20:180] = 255  # a T: wide above
    alpha[20:180, 90:110] = 255
    tee = volume(cutout(alpha))["vertices"]
    assert np.ptp(tee[tee[:, 1] > 0.8][:, 0]) > 1.5
    assert np.ptp(tee[tee[:, 1] < -0.8][:, 0]) < 0.5


def test_depth_makes_a_relief():
    round_one, flat = (volume(cutout(disc()), depth)["vertices"] for depth in (1.0, 0.25))
    assert np.ptp(flat[:, 2]) == pytest.approx(np.ptp(round_one[:, 2]) / 4, rel=1e-3)
    assert np.ptp(flat[:, 0]) == pytest.approx(np.ptp(round_one[:, 0]), rel=1e-3)


def test_a_picture_that_is_all_subject():
    solid(volume(cutout(np.full((60, 80), 255, np.uint8))))


def test_a_faint_subject_is_one_all_the_same():
    assert len(volume(cutout(disc() // 4))["faces"]) == pytest.approx(len(volume(cutout(disc()))["faces"]), rel=0.05)


def test_nothing_opaque_is_an_error_for_the_caller():
    with pytest.raises(BadPicture, match="transparent"):
        volume(cutout(np.zeros((20, 20), np.uint8)))


@settings(max_examples=150, deadline=None)
@given(
    arrays.arrays(
        np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 90, 200, 255])
    )
)
def test_any_silhouette_bounds_a_solid(alpha):
    if alpha.max() > 0:
        solid(volume(cutout(alpha)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 6), st.integers(40, 700))
def test_any_blotches_bound_a_solid(seed, scale, size):
    noise = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), scale)
    # About its own mean: a smooth field on few pixels may lie below zero everywhere.
    solid(volume(cutout(np.where(smooth - smooth.mean() > smooth.std() * 0.3, 255, 0).astype(np.uint8))))


def test_an_item_does_not_depend_on_its_batch():
    works = [Work(({"pixels": cutout(alpha)},), {"depth": 1.0}) for alpha in (disc(), disc(hole=30), disc(80, 20))]
    together = inflate(works)
    for work, value in zip(works, together, strict=True):
        [alone] = inflate([work])
        assert all(np.array_equal(alone[name], value[name]) for name in alone)


def test_the_description_needs_no_runtime():
    program = (
        "import sys; from meshkiln.engines.inflate import ENGINE; ENGINE.canonical({'faces': 500});"
        "print(*{'numpy', 'scipy', 'cv2', 'trimesh', 'skimage', 'PIL'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ""


def test_canary():
    # Counts and places in the volume; the solve is floating point, so a hundredth of a per cent is left to it.
    cases = {}
    for name, alpha in {"disc": disc(), "ring": disc(hole=40), "small": disc(40, 12)}.items():
        mesh = volume(cutout(alpha))
        vertices = mesh["vertices"].astype(np.float64)
        cases[name] = {
            "counts": np.array([len(vertices), len(mesh["faces"])]),
            "moments": np.concatenate([vertices.mean(axis=0), (vertices.T @ vertices / len(vertices)).ravel()]),
            "sample": vertices[:: len(vertices) // 40],
        }
    canary.check(
        INFLATE,
        cases,
        lambda recorded, now: all(np.allclose(recorded[key], now[key], rtol=1e-4, atol=1e-4) for key in recorded),
    )
