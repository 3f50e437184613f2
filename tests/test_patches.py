"""The patch decoder: its bricks hold its own field's surface, closed, and that is near the query head's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from meshkiln.engines.vecset import patches, runtime, sparse
from meshkiln.engines.vecset.grid import F32, Mesh
from meshkiln.engines.vecset.manifest import manifest
from test_decode import assert_closed

pytestmark = pytest.mark.skipif("nodes.onnx" not in manifest().files, reason="no patch decoder has been distilled")


def features(seed: int, spread: float = 1.0) -> F32:
    """Of a latent set drawn at random: a shape that no picture asks for, with a lot of surface."""
    its = manifest()
    z = spread * np.random.default_rng(seed).normal(size=(1, its.latents, its.latent_dim))
    found: F32 = runtime.run("latents.onnx", z=z.astype(np.float32))[0]
    return found


def apart(a: Mesh, b: Mesh, resolution: int) -> F32:
    """How far a's vertices are from b's nearest, in cells of the grid."""
    distance: F32 = cKDTree(b.vertices).query(a.vertices)[0] * (resolution / 2)
    return distance


@pytest.mark.parametrize("resolution", [32, 64, 96, 320, 352])
def test_bricks_hold_the_surface_of_the_field_itself(resolution: int) -> None:
    """The sparse decoder, asking the very same field point by point, finds the same vertices; also where a cell of the
    lattice is one brick of an odd size, or eight bricks."""
    its = features(1)
    mesh, cost = patches.decode_one(its, resolution)
    whole, asked = sparse.decode_one(patches.field(its), resolution)
    assert (apart(mesh, whole, resolution) < 0.01).mean() >= 0.999
    assert (apart(whole, mesh, resolution) < 0.01).mean() >= 0.999
    assert cost.queries <= patches.NODES**3 < asked.queries or resolution <= 64


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.floats(0.3, 2.5),
    resolution=st.sampled_from([32, 64, 128, 96, 224]),
)
def test_every_surface_is_closed(seed: int, spread: float, resolution: int) -> None:
    """Also of fields that leave the box and of scattered ones."""
    mesh, _ = patches.decode_one(features(seed, spread), resolution)
    assert_closed(mesh)
    assert np.abs(mesh.vertices).max(initial=0) <= 1


@pytest.mark.parametrize("resolution", [2, 50, 100])
def test_grids_that_bricks_do_not_fit_are_decoded_point_by_point(resolution: int) -> None:
    assert not patches.serves(resolution)
    mesh, _ = patches.decode_one(features(2), resolution)
    assert_closed(mesh)


def test_a_field_without_an_inside_is_an_empty_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runtime.run

    def emptied(name: str, **inputs: F32) -> F32:
        held = run(name, **inputs).copy()
        if name == "nodes.onnx":
            held[:] = 0
            held[..., 0] = -9
        return held

    monkeypatch.setattr(runtime, "run", emptied)
    mesh, cost = patches.decode_one(features(3), 64)
    assert len(mesh.faces) == len(mesh.vertices) == 0
    assert cost.queries == (patches.CELLS // 2 + 1) ** 3


def test_neighbouring_cells_agree_on_what_they_share() -> None:
    """A sample on a face, an edge or a corner is the same from each of the cells that meet there."""
    lattice = patches.Lattice(features(4))
    place = np.array([[15, 16, 14]])
    for corner in patches.CORNERS[1:]:
        share = np.random.default_rng(0).random((20, 3)).astype(np.float32)
        here, there = (np.where(corner == 1, side, share).astype(np.float32) for side in (1.0, 0.0))
        values = [
            lattice.sampled(at, runtime.run("basis.onnx", offsets=offsets))
            for at, offsets in ((place, here), (place + corner, there))
        ]
        np.testing.assert_allclose(*values, atol=patches.UNSAFE / 10)


@pytest.mark.parametrize("size", [70, 90])
def test_the_surface_is_near_the_query_heads(size: int) -> None:
    """Tenths of a cell of the finest grid served by default, on latents that a picture leads to."""
    from test_vecset import chain, disc

    mesh, whole = (
        Mesh(made["vertices"], made["faces"])
        for name in ("patches", "sparse")
        for made in chain([disc(size)], octree_resolution=128, decoder=name)
    )
    far = np.concatenate([apart(mesh, whole, 128), apart(whole, mesh, 128)])
    assert np.median(far) < 0.25
    assert (far < 1).mean() > 0.99
