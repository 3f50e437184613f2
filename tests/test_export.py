"""Every format read back by a library that did not write it here, or by hand where it did."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import trimesh
from PIL import Image

import canary
from meshkiln.engines.base import Work
from meshkiln.engines.inflate.inflate import volume
from meshkiln.engines.mesh import EXPORT, FORMATS
from meshkiln.engines.mesh.export import WRITERS, export, printable
from meshkiln.engines.mesh.finish import solidify
from meshkiln.engines.mesh.texture import colours, filled, paint, place

RED, GREEN, BLUE = (200, 30, 20), (20, 160, 40), (30, 40, 190)


def picture():
    """A plate 160 wide and 80 high in a picture of 240 × 200: red on the left, green on the right, blue along the top.

    Around it shines a white background through half-transparent edges.
    """
    pixels = np.zeros((200, 240, 4), np.uint8)
    pixels[57:143, 37:203] = (255, 255, 255, 100)
    pixels[60:140, 40:120] = (*RED, 255)
    pixels[60:140, 120:200] = (*GREEN, 255)
    pixels[60:80, 40:200] = (*BLUE, 255)
    return pixels


@pytest.fixture(scope="module")
def mesh():
    mesh = volume(picture())
    vertices, faces = solidify(mesh["vertices"], mesh["faces"], 3000)
    return {**mesh, "vertices": vertices, "faces": faces}


def written(mesh, name, size=100.0):
    [data] = export([Work((mesh, {"pixels": picture()}), {"format": name, "size": size})])
    return data


def read(data, name):
    loaded = trimesh.load_mesh(io.BytesIO(data), file_type="zip" if name == "obj" else name)
    assert isinstance(loaded, trimesh.Trimesh)
    return loaded


@pytest.mark.parametrize("name", FORMATS)
def test_read_back_it_is_the_same_solid(mesh, name):
    loaded = read(written(mesh, name), name)
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    assert len(loaded.faces) == len(mesh["faces"])
    assert loaded.is_watertight
    assert loaded.is_winding_consistent
    expected = printable(mesh["vertices"], 100.0) if name in ("stl", "3mf") else mesh["vertices"]
    assert loaded.bounds == pytest.approx(np.array([expected.min(axis=0), expected.max(axis=0)]), abs=1e-4)
    original = trimesh.Trimesh(expected, mesh["faces"], process=False)
    assert loaded.volume == pytest.approx(original.volume, rel=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_mesh_gives_the_same_bytes(mesh, name):
    assert written(mesh, name) == written(mesh, name)


def test_there_is_a_writer_for_every_format():
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("name", ["glb", "obj", "ply"])
def test_the_picture_is_on_the_mesh(mesh, name):
    loaded = read(written(mesh, name), name)
    if name == "ply":
        seen = loaded.visual.vertex_colors[:, :3]
    else:
        seen = loaded.visual.to_color().vertex_colors[:, :3]
    places = {RED: (-0.6, -0.3), GREEN: (0.6, -0.3), BLUE: (0.0, 0.42)}
    for colour, spot in places.items():
        for front in (True, False):
            side = np.flatnonzero((loaded.vertices[:, 2] > 0) == front)
            nearest = side[np.argmin(np.linalg.norm(loaded.vertices[side, :2] - spot, axis=1))]
            assert np.abs(seen[nearest].astype(int) - colour).max() < 25, (colour, front, seen[nearest])


def test_no_background_shines_through_at_the_edge(mesh):
    # The white of the half-transparent rim is nowhere on the mesh.
    loaded = read(written(mesh, "ply"), "ply")
    assert loaded.visual.vertex_colors[:, :3].min(axis=1).max() < 80


def test_glb_is_what_the_specification_says(mesh):
    data = written(mesh, "glb")
    magic, version, length, json_length, json_type = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, json_type) == (b"glTF", 2, len(data), b"JSON")
    tree = json.loads(data[20 : 20 + json_length])
    binary = data[28 + json_length :]
    assert struct.unpack("<I4s", data[20 + json_length : 28 + json_length]) == (len(binary), b"BIN\0")
    assert tree["buffers"] == [{"byteLength": len(binary)}]
    [material] = tree["materials"]
    rough = material["pbrMetallicRoughness"]
    assert rough["metallicFactor"] == 0
    assert 0.5 <= rough["roughnessFactor"] <= 1
    [image] = tree["images"]
    view = tree["bufferViews"][image["bufferView"]]
    assert image["mimeType"] == "image/jpeg"
    texture = Image.open(io.BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
    assert texture.format == "JPEG"
    [primitive] = tree["meshes"][0]["primitives"]
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} <= set(primitive["attributes"])
    arrays = {name: accessor(tree, binary, index) for name, index in primitive["attributes"].items()}
    indices = accessor(tree, binary, primitive["indices"]).reshape(-1, 3)
    assert indices.max() < len(arrays["POSITION"])
    assert np.linalg.norm(arrays["NORMAL"], axis=1) == pytest.approx(1, abs=1e-4)
    corner = arrays["POSITION"][indices]
    flat = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    outward = np.einsum("fc,fc->f", flat, arrays["NORMAL"][indices].sum(axis=1)) > 0
    assert outward.mean() > 0.99
    assert arrays["TEXCOORD_0"].min() >= 0
    assert arrays["TEXCOORD_0"].max() <= 1


def accessor(tree, binary, index):
    described = tree["accessors"][index]
    view = tree["bufferViews"][described["bufferView"]]
    kind = {5126: np.float32, 5125: np.uint32}[described["componentType"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[described["type"]]
    start = view["byteOffset"] + described.get("byteOffset", 0)
    values = np.frombuffer(binary, kind, described["count"] * width, start).reshape(-1, width)
    if "min" in described:
        assert np.allclose(values.min(axis=0), described["min"])
        assert np.allclose(values.max(axis=0), described["max"])
    return values


def test_obj_names_its_parts(mesh):
    archive = zipfile.ZipFile(io.BytesIO(written(mesh, "obj")))
    assert archive.namelist() == ["mesh.obj", "mesh.mtl", "mesh.jpg"]
    assert b"mtllib mesh.mtl" in archive.read("mesh.obj")
    assert b"usemtl picture" in archive.read("mesh.obj")
    assert b"map_Kd mesh.jpg" in archive.read("mesh.mtl")
    assert b"newmtl picture" in archive.read("mesh.mtl")
    assert Image.open(io.BytesIO(archive.read("mesh.jpg"))).size > (100, 50)


@pytest.mark.parametrize("name", ["stl", "3mf"])
@pytest.mark.parametrize("size", [100.0, 37.5])
def test_a_print_stands_on_the_bed_in_millimetres(mesh, name, size):
    printed = read(written(mesh, name, size), name)
    low, high = printed.bounds
    assert (high - low).max() == pytest.approx(size, rel=1e-5)
    assert low[2] == pytest.approx(0, abs=1e-4)
    assert (low + high)[:2] == pytest.approx([0, 0], abs=1e-3)
    # The picture's width is the print's width, its height the print's height.
    assert (high - low)[2] / (high - low)[0] == pytest.approx(0.5, abs=0.02)


def test_the_front_of_a_print_looks_towards_minus_y():
    # Right, up, towards the viewer → right, up, towards the viewer who looks along +Y.
    axes = printable(np.array([[0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32), 2.0)
    assert (axes[1:] - axes[0]) == pytest.approx(np.array([[2, 0, 0], [0, 0, 1], [0, -1, 0]]))


def test_3mf_says_millimetres(mesh):
    archive = zipfile.ZipFile(io.BytesIO(written(mesh, "3mf")))
    assert b'unit="millimeter"' in archive.read("3D/3dmodel.model")
    assert {"[Content_Types].xml", "_rels/.rels"} < set(archive.namelist())


def test_a_perspective_camera_finds_its_pixels():
    # A pinhole camera at z = 5 that sees (x, y, z) at x / (5 − z): nearer points spread out.
    project = np.array([[1.0, 0, -0.5, 2.5], [0, -1.0, -0.5, 2.5], [0, 0, -1, 5]])
    spots = place(np.array([[0, 0, 0], [1, 0, 0], [1, 0, 3], [0, 1, 0]]), project)
    assert spots == pytest.approx(np.array([[0.5, 0.5], [0.7, 0.5], [1.0, 0.5], [0.5, 0.3]]))


def test_a_vertex_outside_the_picture_gets_its_edge():
    project = np.array([[0.5, 0, 0, 0.5], [0, -0.5, 0, 0.5], [0, 0, 0, 1]])
    pixels = np.full((10, 10, 4), 255, np.uint8)
    pixels[:, :5, :3] = RED
    pixels[:, 5:, :3] = GREEN
    vertices = np.array([[-3, 0, 0], [3, 0, 0]])
    texture, spots = paint(vertices, project, pixels)
    assert colours(texture, spots).tolist() == [list(RED), list(GREEN)]


def test_colours_are_carried_over_the_edge_but_thin_lines_keep_theirs():
    pixels = picture()
    pixels[10:14, 20:220] = (0, 0, 0, 0)
    pixels[12, 20:220] = (*GREEN, 255)  # a wire above the plate
    cover = filled(pixels)
    assert cover[12, 100].tolist() == list(GREEN)
    assert np.abs(cover[141, 60].astype(int) - RED).max() < 10  # was white, half transparent
    assert np.abs(cover[199, 239].astype(int) - GREEN).max() < 10


def test_more_vertices_than_a_texture_has_rows():
    texture = np.zeros((4, 4, 3), np.uint8)
    texture[:, 2:] = RED
    spots = np.tile([[0.1, 0.5], [0.9, 0.5]], (40_000, 1))
    found = colours(texture, spots)
    assert (found[::2] == 0).all()
    assert (found[1::2] == RED).all()


def test_canary(mesh):
    # What a reader gets, not the bytes: those hang on the versions of zlib and libjpeg.
    ball = trimesh.creation.icosphere(2, radius=0.7)
    project = np.array([[0.5, 0, 0, 0.5], [0, -0.5, 0, 0.5], [0, 0, 0, 1]])
    small = {"vertices": ball.vertices.astype(np.float32), "faces": ball.faces.astype(np.int32), "uv_project": project}
    cases = {}
    for name in FORMATS:
        loaded = read(written(small, name), name)
        summary = {"counts": np.array([len(loaded.vertices), len(loaded.faces)]), "bounds": loaded.bounds}
        if name == "ply":
            summary["colours"] = loaded.visual.vertex_colors.astype(np.float64)
        if name in ("glb", "obj"):
            summary["uv"] = loaded.visual.uv.astype(np.float64)
            image = getattr(loaded.visual.material, "baseColorTexture", None) or loaded.visual.material.image
            summary["texture"] = np.asarray(image.convert("RGB").resize((12, 8)), np.float64)
        cases[name] = summary
    canary.check(EXPORT, cases, agree)


def agree(recorded, now):
    # A JPEG may be encoded a shade differently by another build of the library.
    tolerance = {"texture": 4.0, "colours": 2.0, "bounds": 1e-3, "uv": 1e-5, "counts": 0.0}
    return all(
        recorded[key].shape == now[key].shape and np.abs(recorded[key] - now[key]).max() <= tolerance[key]
        for key in recorded
    )
