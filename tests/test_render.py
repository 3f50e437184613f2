"""What the eye would check: the right side in the right view, colours, holes, up being up."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import trimesh
from PIL import Image

from meshkiln.errors import BadInput, BadParameter
from meshkiln.render import VIEWS, render

SIDES = {
    "front": ((0, 0, 1), (220, 30, 30)),
    "back": ((0, 0, -1), (30, 200, 30)),
    "side": ((1, 0, 0), (40, 60, 230)),
    "other-side": ((-1, 0, 0), (230, 220, 40)),
    "top": ((0, 1, 0), (220, 60, 220)),
}


def dice():
    """A cube, Y up, each side of its own colour."""
    cube = trimesh.creation.box(extents=(2, 2, 2))
    colours = np.full((len(cube.faces), 4), 255, np.uint8)
    for normal, colour in SIDES.values():
        colours[cube.face_normals @ normal > 0.9, :3] = colour
    cube.visual.face_colors = colours
    return cube


def middle(picture):
    return np.asarray(picture)[picture.height // 2, picture.width // 2].astype(int)


def hue_is(pixel, colour):
    """Whether a shaded pixel has the direction of a colour."""
    a, b = (np.power(np.asarray(value) / 255, 2.2) for value in (pixel, colour))
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.98


@pytest.mark.parametrize("view", SIDES)
def test_each_view_shows_its_side(view):
    assert hue_is(middle(render(dice(), (view,), 64)), SIDES[view][1])


def test_views_stand_side_by_side():
    picture = render(dice(), ("front", "side", "back"), 64)
    assert picture.size == (192, 64)
    tiles = [picture.crop((64 * i, 0, 64 * i + 64, 64)) for i in range(3)]
    for tile, view in zip(tiles, ("front", "side", "back"), strict=True):
        assert hue_is(middle(tile), SIDES[view][1])


def test_three_quarter_shows_front_side_and_top():
    pixels = np.asarray(render(dice(), ("three-quarter",), 96)).reshape(-1, 3)
    seen = {view for view, (_, colour) in SIDES.items() if sum(hue_is(pixel, colour) for pixel in pixels) > 100}
    assert seen == {"front", "side", "top"}


@pytest.mark.parametrize("name", ["glb", "ply", "obj"])
def test_formats_that_have_y_up(name):
    tower = trimesh.creation.box(extents=(0.4, 2, 0.4))
    shadow = (
        np.asarray(
            render(
                tower.export(file_type=name) if name != "obj" else tower.export(file_type="obj").encode(),
                ("front",),
                64,
            )
        ).min(axis=2)
        < 250
    )
    assert shadow.any(axis=1).sum() > 3 * shadow.any(axis=0).sum()


def test_formats_for_printing_have_z_up_and_their_front_to_minus_y():
    cone = trimesh.creation.cone(radius=0.5, height=3)  # along Z
    nose = trimesh.creation.box(extents=(0.2, 1, 0.2))
    nose.apply_translation((0, -1, 0.3))
    printed = trimesh.util.concatenate([cone, nose]).export(file_type="stl")
    front, side = (np.asarray(render(printed, (view,), 96)).min(axis=2) < 250 for view in ("front", "side"))
    assert front.any(axis=1).sum() > 2 * front.any(axis=0).sum()
    # From the side, which is seen from +X, −Y is on the left.
    columns = np.flatnonzero(side.any(axis=0))
    tip = np.flatnonzero(side[:30].any(axis=0)).mean()
    assert tip - columns[0] > 1.5 * (columns[-1] - tip)


def test_a_texture_is_the_right_way_up():
    square = trimesh.Trimesh([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    image = np.full((32, 32, 3), (20, 200, 20), np.uint8)
    image[:16, :16] = (230, 20, 20)
    square.visual = trimesh.visual.TextureVisuals(
        uv=[[0, 0], [1, 0], [1, 1], [0, 1]],
        material=trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(image), metallicFactor=0),
    )
    for mesh in (square, trimesh.Scene(square).export(file_type="glb")):
        pixels = np.asarray(render(mesh, ("front",), 64))
        assert hue_is(pixels[20, 20], (230, 20, 20))
        for spot in (pixels[20, 44], pixels[44, 20], pixels[44, 44]):
            assert hue_is(spot, (20, 200, 20))


def test_a_hole_shows_the_background():
    ring = trimesh.creation.torus(1.0, 0.3)  # around Z, so seen from the front as a ring
    picture = render(ring, ("front", "side"), 96, background=(10, 120, 250))
    assert np.abs(middle(picture.crop((0, 0, 96, 96))) - (10, 120, 250)).max() <= 1
    assert not hue_is(middle(picture.crop((96, 0, 192, 96))), (10, 120, 250))


def test_edges_are_smooth():
    greys = np.unique(
        np.asarray(render(trimesh.creation.icosphere(3), ("front",), 64, samples=4))[:12].reshape(-1, 3), axis=0
    )
    assert len(greys) > 10


def test_all_views_have_one_scale():
    rod = trimesh.creation.box(extents=(0.2, 0.2, 2))
    front, side = (
        np.asarray(render(rod, ("front", "side"), 96))[:, 96 * i : 96 * i + 96].min(axis=2) < 250 for i in (0, 1)
    )
    assert side.any(axis=0).sum() > 75
    assert 5 < front.any(axis=0).sum() < 20


def test_an_inside_out_mesh_is_seen_all_the_same():
    cube = dice()
    cube.invert()
    assert hue_is(middle(render(cube, ("front",), 64)), SIDES["front"][1])


def test_a_mesh_from_a_file(tmp_path):
    for name in ("glb", "stl", "ply", "obj"):
        path = tmp_path / f"cube.{name}"
        trimesh.creation.box().export(path)
        assert np.asarray(render(path, ("front",), 32)).min() < 230
        assert np.array_equal(np.asarray(render(str(path), ("front",), 32)), np.asarray(render(path, ("front",), 32)))


def test_the_same_mesh_gives_the_same_picture():
    first, second = (render(dice(), tuple(VIEWS), 48).tobytes() for _ in range(2))
    assert first == second


def empty_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a mesh at all",
        b"glTF\x02\x00\x00\x00",
        b"ply\nformat ascii 1.0\nelement vertex 1\n",
        b"PK\x03\x04 and no more",
        empty_zip(),
        b"v 0 0 0\nv 1 0 0\n",
        b"\x89PNG\r\n\x1a\n",
        trimesh.creation.box().export(file_type="glb")[:400],
    ],
)
def test_what_is_no_mesh_is_the_callers_error(data):
    with pytest.raises(BadInput):
        render(data, ("front",), 32)


def test_a_file_that_is_not_there():
    with pytest.raises(BadInput, match=r"cannot read .*nowhere\.glb"):
        render("nowhere.glb")


def test_parameters_name_what_is_allowed():
    with pytest.raises(BadParameter, match="three-quarter"):
        render(dice(), ("inside",))
    with pytest.raises(BadParameter, match="16 to 4096"):
        render(dice(), size=5)
    with pytest.raises(BadParameter, match="front"):
        render(dice(), ())


def test_without_a_background_the_picture_is_clear_around_the_mesh_and_its_edges_keep_their_colour():
    ball = trimesh.creation.icosphere(3)
    shown = np.asarray(render(ball, ("front",), 64, background=None))
    assert shown.shape == (64, 64, 4)
    assert shown[0, 0, 3] == 0
    assert shown[32, 32, 3] == 255
    edge = (shown[..., 3] > 60) & (shown[..., 3] < 200)
    assert edge.any()
    # Were the edge mixed with black, it would be half as bright as what is next to it.
    on_white = np.asarray(render(ball, ("front",), 64, background=(255, 255, 255)))
    assert shown[edge][:, :3].mean() < on_white[edge].mean()
    assert shown[edge][:, :3].mean() > 40
