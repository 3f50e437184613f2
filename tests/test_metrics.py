"""Metrics against closed forms and against a published implementation's values."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from meshkiln.quality import metrics

POINTS = 20_000


def sphere(radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(5, radius)
    mesh.apply_translation(centre)
    return mesh


def box(extents: tuple[float, float, float], centre: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents)
    mesh.apply_translation(centre)
    return mesh


def test_concentric_spheres() -> None:
    """Radius 0.9 in radius 1: distances 0.1, IoU 0.9³, silhouettes 0.9², and normals that agree."""
    q = metrics.evaluate(sphere(0.9), sphere(1.0), POINTS)
    assert q.accuracy == pytest.approx(0.1, abs=2e-3)
    assert q.completeness == pytest.approx(0.1, abs=2e-3)
    assert q.chamfer_l1 == pytest.approx(0.1, abs=2e-3)
    assert q.chamfer_l1_sum == pytest.approx(0.2, abs=4e-3)
    assert q.volume_iou == pytest.approx(0.9**3, abs=0.01)
    assert q.silhouette_iou == pytest.approx(0.9**2, abs=0.01)
    assert q.normal_consistency == pytest.approx(1, abs=0.01)
    assert q.f_score[0.05] == 0
    closer = metrics.evaluate(sphere(0.96), sphere(1.0), POINTS)
    assert closer.f_score == pytest.approx({0.02: 0.0, 0.05: 1.0, 0.1: 1.0}, abs=0.02)
    assert (q.components, q.watertight) == (1, True)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 400.0])
def test_shifted_box_at_any_scale(scale: float) -> None:
    """A unit cube shifted by a quarter: IoU 0.75/1.25, whatever unit the meshes came in."""
    reference = box((scale, scale, scale), (3 * scale, 0, 0))
    shifted = box((scale, scale, scale), (3.25 * scale, 0, 0))
    q = metrics.evaluate(shifted, reference, POINTS)
    assert q.volume_iou == pytest.approx(0.6, abs=0.015)
    assert q.silhouette_iou == pytest.approx(0.6, abs=0.02)


def test_near_surface_iou_sees_a_shell_that_volume_iou_does_not() -> None:
    """A solid ball for a thin shell with the same outside: the near samples are half in the hollow."""
    hollow = trimesh.util.concatenate(
        [sphere(1.0), trimesh.Trimesh(sphere(0.97).vertices, sphere(0.97).faces[:, ::-1])]
    )
    solid = sphere(1.0)
    small_cavity = trimesh.util.concatenate([sphere(1.0), trimesh.Trimesh(sphere(0.2).vertices, sphere(0.2).faces)])
    assert metrics.evaluate(solid, small_cavity, POINTS).volume_iou == pytest.approx(1 - 0.2**3, abs=0.005)
    q = metrics.evaluate(solid, hollow, POINTS)
    assert q.volume_iou == pytest.approx(1 - 0.97**3, abs=0.01)
    assert q.near_iou < 0.7


def test_missing_half_has_perfect_accuracy_and_not_completeness() -> None:
    halves = [box((1, 1, 1), (-1, 0, 0)), box((1, 1, 1), (1, 0, 0))]
    q = metrics.evaluate(halves[0], trimesh.util.concatenate(halves), POINTS)
    assert q.accuracy < 0.01
    assert q.completeness > 0.3
    precision, recall = 1.0, 0.5
    assert q.f_score[0.02] == pytest.approx(2 * precision * recall / (precision + recall), abs=0.01)
    assert q.components == 1


def test_self_noise_is_what_the_page_says() -> None:
    """A mesh against itself meets other samples of its surface: Chamfer-L1 is not 0, all else is ideal."""
    q = metrics.evaluate(sphere(1.0), sphere(1.0))
    assert 0.003 < q.chamfer_l1 < 0.007
    assert min(q.f_score.values()) > 0.9999
    assert q.volume_iou == q.near_iou == q.silhouette_iou == 1.0
    assert q.normal_consistency > 0.999


def test_an_empty_mesh_is_the_worst_there_is() -> None:
    q = metrics.evaluate(trimesh.Trimesh(), sphere(1.0), POINTS)
    assert q.chamfer_l1 == metrics.FARTHEST
    assert set(q.f_score.values()) == {0.0}
    assert (q.volume_iou, q.near_iou, q.silhouette_iou, q.normal_consistency) == (0, 0, 0, 0)
    assert (q.components, q.watertight) == (0, False)


def test_an_open_reference_is_refused() -> None:
    reference = sphere(1.0)
    with pytest.raises(ValueError, match="closed"):
        metrics.evaluate(sphere(1.0), trimesh.Trimesh(reference.vertices, reference.faces[1:]))


def test_same_seed_same_figures() -> None:
    a = metrics.evaluate(box((1, 2, 1)), sphere(1.0), POINTS)
    assert a == metrics.evaluate(box((1, 2, 1)), sphere(1.0), POINTS)
    assert a != metrics.evaluate(box((1, 2, 1)), sphere(1.0), POINTS, seed=5)


def test_samples_are_area_weighted_and_on_the_surface() -> None:
    mesh = box((1, 2, 4))
    points, normals = metrics.surface_samples(mesh, POINTS, 0)
    assert np.abs(np.abs(points) / (0.5, 1, 2)).max(axis=1) == pytest.approx(np.ones(POINTS))
    areas = np.array([8.0, 4.0, 2.0])
    assert np.abs(normals).mean(axis=0) == pytest.approx(areas / areas.sum(), abs=0.005)


def test_values_of_a_published_implementation() -> None:
    """Two clouds on ellipsoids; values from eval_pointcloud of Convolutional Occupancy Networks (commit 838bea5)."""

    def cloud(seed: int, radii: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
        n = np.random.default_rng(seed).normal(size=(2000, 3))
        n /= np.linalg.norm(n, axis=1, keepdims=True)
        normal = n / radii
        return n * radii, normal / np.linalg.norm(normal, axis=1, keepdims=True)

    a, a_normals = cloud(1, (0.5, 0.3, 0.4))
    b, b_normals = cloud(2, (0.45, 0.35, 0.4))
    b += np.array([0.02, 0, -0.01])
    accuracy, completeness, cosine = metrics.distances(a, a_normals, b, b_normals)
    assert accuracy.mean() == pytest.approx(0.030328260968702205)
    assert completeness.mean() == pytest.approx(0.0300085129001007)
    assert (accuracy.mean() + completeness.mean()) / 2 == pytest.approx(0.03016838693440145)
    assert cosine == pytest.approx(0.9846918093393248)
    assert metrics.f_score(accuracy, completeness, 0.01) == pytest.approx(0.05071921182266009)
    assert metrics.f_score(accuracy, completeness, 0.02) == pytest.approx(0.27414949863263455)


def test_silhouette_is_upright() -> None:
    mask = metrics.silhouette(box((0.5, 0.5, 0.5), (0.5, 0.5, 0)), size=64)
    rows, columns = np.nonzero(mask)
    assert rows.max() < 32 <= columns.min()
    assert mask.sum() == pytest.approx(16 * 16, abs=34)


def test_perspective_shows_what_is_near_larger() -> None:
    """A disc at height z above the window's plane is magnified by d / (d − z)."""
    plate = box((0.8, 0.8, 1e-3), (0, 0, 1.0))
    area = metrics.silhouette(plate, metrics.Camera(4.0, (0.0, 0.0), 1.0)).mean() * 4
    assert area == pytest.approx((0.8 * 4 / 3) ** 2, rel=0.03)
    aside = metrics.silhouette(plate, metrics.Camera(4.0, (0.4, 0.0), 1.0))
    assert aside.any(axis=0).nonzero()[0].mean() == pytest.approx(128 * 0.6, abs=2)


def test_alignment_undoes_a_similarity() -> None:
    reference = trimesh.util.concatenate([box((1, 0.6, 0.4)), sphere(0.25, (0.5, 0.4, 0.1))])
    turn = trimesh.transformations.rotation_matrix(0.2, (1, 2, 3))
    moved = reference.copy()
    moved.apply_transform(turn)
    moved.apply_scale(1.15)
    moved.apply_translation((0.1, -0.05, 0.08))
    back = metrics.aligned(moved, reference)
    assert np.abs(back.vertices - reference.vertices).max() < 0.03
    assert metrics.evaluate_aligned(moved, reference, POINTS)["aligned_f_score_0.05"] > 0.99
    assert metrics.evaluate(moved, reference, POINTS).f_score[0.05] < 0.8
