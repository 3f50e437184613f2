"""Whatever an engine makes, what leaves `finish` bounds a solid; and `fault` sees what is wrong with what does not."""

from __future__ import annotations

import io

import manifold3d
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

import canary
from meshkiln.engines.base import Work
from meshkiln.engines.mesh import FINISH
from meshkiln.engines.mesh.clusters import clustered
from meshkiln.engines.mesh.finish import finish, solidify
from meshkiln.engines.mesh.solid import at_fault, distinct, fault
from meshkiln.errors import StageFailed


def ball(level=3):
    mesh = trimesh.creation.icosphere(level)
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)


def cube(corner=(0, 0, 0)):
    mesh = trimesh.creation.box()
    return np.asarray(mesh.vertices, np.float32) + np.float32(0.5) + np.float32(corner), np.asarray(
        mesh.faces, np.int32
    )


def both(first, second):
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1] + len(first[0])])


def torus():
    mesh = trimesh.creation.torus(1.0, 0.3, major_sections=96, minor_sections=48)
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)


def assert_solid(vertices, faces):
    """By `fault`, and by two libraries that know nothing of it; also when indices are lost, as in STL."""
    assert fault(vertices, faces) == ""
    assert vertices.dtype == np.float32
    assert faces.dtype == np.int32
    body = manifold3d.Manifold(manifold3d.Mesh(vertices, faces.astype(np.uint32)))
    assert body.status() == manifold3d.Error.NoError
    assert body.volume() > 0
    written = trimesh.Trimesh(vertices, faces, process=False).export(file_type="stl")
    again = trimesh.load_mesh(io.BytesIO(written), file_type="stl")
    assert again.is_watertight
    assert again.is_winding_consistent
    assert len(again.faces) == len(faces)


def test_a_solid_has_no_fault_and_is_left_alone():
    vertices, faces = ball()
    assert fault(vertices, faces) == ""
    same = solidify(vertices, faces)
    assert np.array_equal(same[0], vertices)
    assert np.array_equal(same[1], faces)


def test_fault_tells_what_is_wrong():
    vertices, faces = ball()
    turned = faces.copy()
    turned[5] = turned[5, ::-1]
    apex = both(cube(), cube((1, 1, 1)))
    welded = trimesh.Trimesh(*apex, process=True)
    wrong = {
        "no triangles": (vertices, faces[:0]),
        "finite": (np.where(vertices == vertices[3], np.nan, vertices), faces),
        "do not exist": (vertices[:-1], faces),
        "in no triangle": (np.concatenate([vertices, [[9, 9, 9]]]), faces),
        "lie on others": apex,
        "one side only": (vertices, faces[1:]),
        "more than one triangle": (vertices, np.concatenate([faces, faces[:1]])),
        "wound alike|more than one triangle": (vertices, turned),
        "more than one fan": (np.asarray(welded.vertices), np.asarray(welded.faces)),
        "inwards": (vertices, faces[:, ::-1]),
    }
    for words, mesh in wrong.items():
        assert any(word in fault(*mesh) for word in words.split("|")), (words, fault(*mesh))


@pytest.mark.parametrize("alike", [0, 7])
def test_like_points_find_each_other(alike):
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    points[:alike] = points[40 : 40 + alike]
    first, like = distinct(points)
    assert len(first) == 50 - alike
    assert np.array_equal(points[first[like]], points)


def test_an_inside_out_mesh_is_turned():
    vertices, faces = ball()
    turned = solidify(vertices, faces[:, ::-1])
    assert_solid(*turned)
    assert len(turned[1]) == len(faces)


@pytest.mark.parametrize("corner", [(1, 1, 0), (1, 1, 1)], ids=["edge", "vertex"])
def test_parts_that_touch_are_taken_apart(corner):
    pair = solidify(*both(cube(), cube(corner)))
    assert_solid(*pair)
    assert len(pair[1]) == 24
    assert trimesh.Trimesh(*pair, process=False).volume == pytest.approx(2, rel=1e-3)


def test_a_hole_is_closed():
    vertices, faces = ball()
    closed = solidify(vertices, faces[20:])
    assert_solid(*closed)


def test_triangles_wound_at_random_enclose_what_they_enclose():
    vertices, faces = ball()
    flip = np.random.default_rng(1).random(len(faces)) < 0.5
    faces = np.where(flip[:, None], faces[:, ::-1], faces)
    closed = solidify(vertices, faces)
    assert_solid(*closed)
    assert trimesh.Trimesh(*closed, process=False).volume == pytest.approx(4 / 3 * np.pi, rel=0.05)


def test_loose_triangles_are_one_mesh():
    vertices, faces = ball()
    soup = vertices[faces].reshape(-1, 3)
    welded = solidify(soup, np.arange(len(soup), dtype=np.int32).reshape(-1, 3))
    assert_solid(*welded)
    assert len(welded[0]) == len(vertices)


def test_a_sheet_becomes_a_plate():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    plate = solidify(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    assert_solid(*plate)
    assert np.ptp(plate[0], axis=0) == pytest.approx([1, 1, 0], abs=0.05)


@pytest.mark.parametrize("target", [4000, 1000, 100])
def test_a_simplified_torus_is_a_torus(target):
    simple = solidify(*torus(), target)
    assert_solid(*simple)
    assert target * 0.9 <= len(simple[1]) <= target
    assert trimesh.Trimesh(*simple, process=False).euler_number == 0


def shell(thickness, level=5):
    """A hollow ball of radius 1 whose wall has the given thickness."""
    vertices, faces = ball(level)
    return both((vertices, faces), (vertices * np.float32(1 - thickness), faces[:, ::-1]))


@pytest.mark.parametrize("mesh", [ball(5), torus(), shell(0.02)], ids=["ball", "torus", "thin shell"])
def test_clustering_keeps_a_surface_what_it_is(mesh):
    """The shell's wall is a third of a cell thick, so nearly every cell holds both its sides."""
    vertices, faces = clustered(*mesh, 1.5, len(mesh[1]) // 4)
    assert_solid(vertices, faces)
    assert len(faces) < len(mesh[1])
    before, after = (trimesh.Trimesh(*m, process=False) for m in (mesh, (vertices, faces)))
    assert after.euler_number == before.euler_number
    assert after.volume == pytest.approx(before.volume, rel=0.01)


def test_an_open_mesh_is_not_clustered():
    vertices, faces = ball(5)
    assert clustered(vertices, faces[100:], 1.5, 4000) is None


def test_vertices_at_fault_are_named():
    pair = both(cube(), cube((1, 1, 1)))
    welded = trimesh.Trimesh(*pair, process=True)
    assert np.flatnonzero(at_fault(np.asarray(welded.faces), len(welded.vertices))).size == 1
    vertices, faces = ball()
    assert not at_fault(faces, len(vertices)).any()
    assert set(np.flatnonzero(at_fault(faces[1:], len(vertices)))) == set(faces[0])
    turned = faces.copy()
    turned[5] = turned[5, ::-1]
    assert at_fault(turned, len(vertices)).all()


def test_triangles_are_not_made_up():
    vertices, faces = ball()
    assert len(solidify(vertices, faces, 10**6)[1]) == len(faces)


def test_a_target_too_small_for_the_parts_gives_a_solid_all_the_same():
    parts = ball(2)
    for x in range(1, 9):
        other = ball(2)
        parts = both(parts, (other[0] * np.float32(0.3) + np.float32([2 * x, 0, 0]), other[1]))
    for target in (1, 4, 10, 30, 60):
        assert_solid(*solidify(*parts, target))


def test_parts_survive_where_triangles_suffice():
    parts = both(ball(), (ball(1)[0] * np.float32(0.2) + np.float32(3), ball(1)[1]))
    simple = solidify(*parts, 200)
    assert_solid(*simple)
    assert trimesh.Trimesh(*simple, process=False).body_count == 2


def test_the_same_mesh_twice_gives_the_same_arrays():
    for target in (0, 500):
        first, second = (solidify(*torus(), target) for _ in range(2))
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize(
    "mesh",
    [
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)),
        (np.full((3, 3), np.nan, np.float32), np.array([[0, 1, 2]], np.int32)),
        (np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32)),
    ],
    ids=["empty", "not finite", "a point"],
)
def test_what_has_no_surface_is_an_error(mesh):
    with pytest.raises(StageFailed):
        solidify(*mesh)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 60), st.sampled_from([0, 8, 40]))
def test_any_soup_becomes_a_solid(seed, count, target):
    generator = np.random.default_rng(seed)
    vertices = generator.normal(size=(count, 3)).astype(np.float32)
    faces = generator.integers(0, count, (2 * count, 3)).astype(np.int32)
    distinct = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    if distinct.any():
        assert_solid(*solidify(vertices, faces, target))


def test_the_stage_hands_on_what_it_does_not_know():
    vertices, faces = ball()
    project = np.arange(12.0).reshape(3, 4)
    [value] = finish([Work(({"vertices": vertices, "faces": faces, "uv_project": project},), {"faces": 300})])
    assert len(value["faces"]) <= 300
    assert np.array_equal(value["uv_project"], project)


def test_canary():
    cases = {}
    for name, mesh, target in (
        ("ball", ball(), 300),
        ("torus", torus(), 1000),
        ("touching", both(cube(), cube((1, 1, 0))), 0),
    ):
        vertices, faces = solidify(*mesh, target)
        solid = trimesh.Trimesh(vertices, faces, process=False)
        cases[name] = {
            "counts": np.array([len(vertices), len(faces)]),
            "measures": np.array([solid.volume, solid.area, *solid.bounds.ravel()]),
        }
    canary.check(
        FINISH,
        cases,
        lambda recorded, now: all(np.allclose(recorded[key], now[key], rtol=1e-4, atol=1e-4) for key in recorded),
    )
