"""The sparse decoder gives the dense decoder's surface, from far fewer queries."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from meshkiln.engines.vecset import cubes, dense, sparse
from meshkiln.engines.vecset.grid import F32, Field, Mesh, axis

STEEPNESS = 60.0


def random_shape(seed: int) -> Field:
    """Two to five rounded primitives, joined or cut, as logits of −60 × distance (a lower bound of it)."""
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(rng.integers(2, 6)):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
        centre = (rng.uniform(-0.35, 0.35, 3) * (number > 0)).astype(np.float32)
        size = rng.uniform(0.12, 0.45, 3).astype(np.float32)
        parts.append((rng.integers(0, 3), turn, centre, size, number > 0 and rng.random() < 0.25))

    def field(points: F32) -> F32:
        total = np.full(len(points), 9.0, np.float32)
        for kind, turn, centre, size, cut in parts:
            p = turn.T @ (points - centre).T  # (3, N): numpy is slow along a last axis of three
            if kind == 0:
                d = np.linalg.norm(p, axis=0) - size[0]
            elif kind == 1:
                q = np.abs(p) - size[:, None]
                d = np.linalg.norm(np.maximum(q, 0), axis=0) + np.minimum(q.max(axis=0), 0) - 0.03
            else:
                d = np.hypot(np.hypot(p[0], p[2]) - size[0] - 0.1, p[1]) - size[1] * 0.5
            total = np.maximum(total, -d) if cut else np.minimum(total, d)
        return (-STEEPNESS * total).astype(np.float32)

    return field


def ball(centre: tuple[float, float, float], radius: float) -> Field:
    middle = np.array(centre, np.float32)
    return lambda p: (STEEPNESS * (radius - np.linalg.norm(p - middle, axis=1))).astype(np.float32)


def union(*fields: Field) -> Field:
    return lambda p: np.maximum.reduce([field(p) for field in fields])


def edges_of(mesh: Mesh) -> np.ndarray:
    """How many faces meet at each directed side, as counts of (side, opposite side) pairs: all 1 when closed."""
    sides = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    forward = sides[:, 0] * len(mesh.vertices) + sides[:, 1]
    backward = sides[:, 1] * len(mesh.vertices) + sides[:, 0]
    assert (np.diff(np.sort(forward)) > 0).all(), "a directed side is used twice"
    return np.setxor1d(forward, backward, assume_unique=True)


def assert_closed(mesh: Mesh) -> None:
    assert edges_of(mesh).size == 0


def volume(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def is_near(a: F32, b: F32, distance: float) -> np.ndarray:
    return cKDTree(b).query(a)[0] <= distance


@pytest.mark.parametrize("start", range(0, 120, 12))
def test_sparse_vertices_are_the_dense_ones(start: int) -> None:
    """120 shapes at resolutions that are mostly no powers of two, from a coarse grid of 20 cells and more."""
    near = []
    for seed in range(start, start + 12):
        resolution = int(np.random.default_rng(seed).integers(40, 73))
        field = random_shape(seed)
        whole = dense.decode(field, resolution)
        found, _ = sparse.decode_one(field, resolution, coarse=20)
        near.append(is_near(whole.vertices, found.vertices, 0.2 / resolution))
        # It never invents: all its vertices but the few central ones are the dense grid's.
        assert is_near(found.vertices, whole.vertices, 0.2 / resolution).mean() >= 0.998, (seed, resolution)
        assert near[-1].mean() >= 0.997, (seed, resolution)
        assert_closed(found)
        assert volume(found) == pytest.approx(volume(whole), rel=1e-2, abs=1e-4)
    assert np.concatenate(near).mean() >= 0.9995


def test_fewer_queries_at_256() -> None:
    mesh, cost = sparse.decode_one(random_shape(3), 256)
    assert cost.queries * 15 <= 257**3
    assert cost.calls <= 10
    assert_closed(mesh)


@pytest.mark.parametrize("resolution", [2, 3, 7, 31, 50, 75])
def test_a_field_that_leaves_the_box_is_closed_at_its_faces(resolution: int) -> None:
    mesh, _ = sparse.decode_one(ball((0.2, 0, 0), 1.1), resolution, coarse=8)
    whole = dense.decode(ball((0.2, 0, 0), 1.1), resolution)
    assert_closed(mesh)
    assert np.abs(mesh.vertices).max() <= 1
    assert is_near(mesh.vertices, whole.vertices, 0.2 / resolution).all()
    assert is_near(whole.vertices, mesh.vertices, 0.2 / resolution).all()


def test_a_field_full_everywhere_is_the_box() -> None:
    mesh, _ = sparse.decode_one(lambda p: np.ones(len(p), np.float32), 40)
    assert_closed(mesh)
    assert volume(mesh) == pytest.approx(8, rel=0.01)


def test_an_empty_field_is_an_empty_mesh() -> None:
    def nothing(points: F32) -> F32:
        return np.full(len(points), -1, np.float32)

    for mesh in (sparse.decode([nothing], 64)[0], dense.decode(nothing, 20)):
        assert mesh.vertices.shape == (0, 3)
        assert mesh.faces.shape == (0, 3)
        assert mesh.faces.dtype == np.int32


def test_a_batch_gives_what_each_shape_gives_alone() -> None:
    fields = [random_shape(1), lambda p: -np.ones(len(p), np.float32), random_shape(2)]
    for together, field in zip(sparse.decode(fields, 64), fields, strict=True):
        alone = sparse.decode([field], 64)[0]
        np.testing.assert_array_equal(together.vertices, alone.vertices)
        np.testing.assert_array_equal(together.faces, alone.faces)


def test_samples_are_the_dense_grids_own() -> None:
    """Every point the sparse decoder asks for is a sample of the dense grid, bit for bit, and none twice."""
    asked: list[F32] = []

    def field(points: F32) -> F32:
        asked.append(points.copy())
        return random_shape(5)(points)

    sparse.decode_one(field, 90)
    points = np.concatenate(asked)
    assert np.isin(points, axis(90)).all()
    assert len(np.unique(points, axis=0)) == len(points)


def test_the_axis_ends_on_the_box_exactly() -> None:
    for resolution in (2, 3, 100, 253, 256, 384):
        coordinate = axis(resolution, 1.01)
        assert len(coordinate) == resolution + 1
        assert coordinate[0] == -np.float32(1.01)
        assert coordinate[-1] == np.float32(1.01)


def test_no_ball_two_coarse_cells_wide_is_missed() -> None:
    rng = np.random.default_rng(0)
    resolution, coarse = 48, 12
    radius = 1.0 * 2 / coarse
    for _ in range(40):
        centre = tuple(rng.uniform(-1 + radius, 1 - radius, 3))
        mesh, _ = sparse.decode_one(ball(centre, radius), resolution, coarse=coarse)
        assert volume(mesh) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.06)


def test_margin_finds_what_lies_between_coarse_samples() -> None:
    """A ball two thirds of a coarse cell wide in the middle of a coarse cell crosses no coarse side."""
    h = 2 / 16
    big, small = ball((-0.5, 0, 0), 0.3), ball((4.5 * h, 0.5 * h, 0.5 * h), 0.32 * h)
    without, _ = sparse.decode_one(union(big, small), 96, coarse=16, margin=0.0)
    within, _ = sparse.decode_one(union(big, small), 96, coarse=16, margin=0.87)
    assert without.vertices[:, 0].max() < 0
    assert within.vertices[:, 0].max() > 4 * h


def test_a_shape_that_crosses_no_coarse_side_is_found() -> None:
    """A plate half a coarse cell thick, right between two layers of coarse samples, and nothing else."""
    h = 2 / 16

    def plate(points: F32) -> F32:
        d = np.abs(points - np.array([0, 0.5 * h, 0], np.float32)) - np.array([0.5, 0.25 * h, 0.5], np.float32)
        return (-STEEPNESS * d.max(axis=1)).astype(np.float32)

    mesh, _ = sparse.decode_one(plate, 96, coarse=16)
    assert_closed(mesh)
    assert volume(mesh) == pytest.approx(0.5 * h, rel=0.05)


def test_a_thin_plate_is_followed_to_its_end() -> None:
    """One voxel thick, between coarse samples except where a ball sits on it."""

    def field(points: F32) -> F32:
        plate = np.maximum(np.abs(points[:, 1] - 0.06) - 0.02, np.abs(points).max(axis=1) - 0.8)
        return np.maximum(-STEEPNESS * plate, ball((0.1, 0, 0), 0.2)(points)).astype(np.float32)

    mesh, _ = sparse.decode_one(field, 128, coarse=16)
    whole = dense.decode(field, 128)
    assert_closed(mesh)
    assert is_near(whole.vertices, mesh.vertices, 0.2 / 128).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_any_signs_at_all_give_a_closed_manifold(seed: int, side: int) -> None:
    """Noise: every case with every choice at its ambiguous faces turns up."""
    values = np.full((1, side + 1, side + 1, side + 1), -1, np.float32)
    inner = (slice(None), *(slice(1, side),) * 3)
    values[inner] = np.random.default_rng(seed).normal(size=values[inner].shape)
    vertices, faces = cubes.extract(values, np.zeros((1, 8), np.int32), np.zeros((1, 3), np.int32))
    if len(faces):
        mesh = Mesh(vertices.astype(np.float32), faces)
        assert_closed(mesh)
        assert volume(mesh) > 0
        assert np.array_equal(np.unique(faces), np.arange(len(vertices)))


def test_strides_reach_any_resolution() -> None:
    for resolution in range(2, 600):
        sizes = sparse.strides(resolution, 32)
        assert sizes[-1] == 1
        assert resolution / sizes[0] >= min(32, resolution)
        assert all(a // b in (2, 3) and a % b == 0 for a, b in pairwise(sizes))
