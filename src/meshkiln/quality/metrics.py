"""Metrics of a mesh against a reference, in the field's conventions, each with its source.

Both meshes are moved by one transform, the one that takes the *reference's* bounding box to the middle of [−1, 1]³ with
its longest side filling it (thresholds and distances are in these units, as in Tatarchenko et al. 2019 scaled to 2).
Nothing is aligned: meshes are compared in the frame they share. `aligned` is the other question, asked by name.

An empty prediction has the worst value of each metric: distances of 2√3 (the diagonal of the box, as the evaluation
code of Occupancy Networks has √3 for its unit box), scores, IoUs and normal consistency of 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import trimesh

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

POINTS = 100_000
"""Points on each surface, as Occupancy Networks evaluates; half as many in the volume and near the surface, where
rays are dear. That leaves one mesh's volume IoU a standard error of 0.002 (an apple) to 0.01 (a standing figure, which
fills a thirtieth of its box), and its near-surface IoU one of 0.004 at most."""

THRESHOLDS = (0.02, 0.05, 0.1)
NEAR = 0.05
"""Standard deviation, along each axis, of the points about the reference's surface that near-surface IoU asks."""

FARTHEST = 2 * 3**0.5


@dataclass(frozen=True, slots=True)
class Quality:
    """One mesh against its reference; lengths in half reference boxes.

    accuracy : mean distance of the mesh's points to the reference's (Mescheder et al. 2019, Occupancy Networks)
    completeness : mean distance of the reference's points to the mesh's
    f_score : threshold → harmonic mean of precision and recall (Knapitsch et al. 2017; Tatarchenko et al. 2019)
    volume_iou : over uniform points in the box around both (Mescheder et al. 2019)
    near_iou : over points normally distributed about the reference's surface (as Zhang et al. 2023, 3DShape2VecSet,
        report beside the volume's), which sees what a volume hides: shells and thin parts
    normal_consistency : mean |cos| of normals at nearest points, both ways, averaged (Mescheder et al. 2019)
    silhouette_iou : seen by the camera given, or along z without perspective in the square around both
    components, watertight : of the mesh
    """

    accuracy: float
    completeness: float
    f_score: dict[float, float]
    volume_iou: float
    near_iou: float
    normal_consistency: float
    silhouette_iou: float
    components: int
    watertight: bool

    @property
    def chamfer_l1(self) -> float:
        """½·(accuracy + completeness): Occupancy Networks' Chamfer-L1."""
        return (self.accuracy + self.completeness) / 2

    @property
    def chamfer_l1_sum(self) -> float:
        """accuracy + completeness: the variant other papers print under the same name."""
        return self.accuracy + self.completeness

    def flat(self) -> dict[str, float]:
        """Every figure by name, for tables: f_score_0.05, chamfer_l1, …"""
        scores = {f"f_score_{threshold:g}": score for threshold, score in self.f_score.items()}
        return {
            "chamfer_l1": self.chamfer_l1,
            "chamfer_l1_sum": self.chamfer_l1_sum,
            **scores,
            "volume_iou": self.volume_iou,
            "near_iou": self.near_iou,
            "normal_consistency": self.normal_consistency,
            "silhouette_iou": self.silhouette_iou,
            "components": float(self.components),
            "watertight": float(self.watertight),
        }


class Camera(NamedTuple):
    """A pinhole at (0, 0, distance) looking along −z; its square window lies in the plane z = 0.

    distance : from that plane; infinite for no perspective
    centre, half : of the window
    """

    distance: float = math.inf
    centre: tuple[float, float] = (0.0, 0.0)
    half: float = 1.0


def evaluate(
    mesh: trimesh.Trimesh,
    reference: trimesh.Trimesh,
    points: int = POINTS,
    seed: int = 0,
    camera: Camera | None = None,
) -> Quality:
    """`mesh` against a closed `reference` in the frame they share.

    points : samples on each surface; half as many in the volume and near the surface
    seed : of all samples; the same for every mesh, so that meshes of one reference meet the same points, but for those
        in the volume, which spread over the box around both
    camera : for the silhouettes, in the frame of the meshes
    Raises ValueError for a reference that is empty or not closed, whose inside is therefore undefined.
    """
    if len(reference.faces) == 0 or not reference.is_watertight:
        raise ValueError("the reference must be a closed mesh with faces, or its inside is undefined")
    if camera is None:
        every = np.abs(np.concatenate([reference.bounds, mesh.bounds if len(mesh.faces) else reference.bounds]))
        camera = Camera(half=float(every[:, :2].max()))
    silhouettes = silhouette(mesh, camera), silhouette(reference, camera)
    scale, offset = normalisation(reference)
    reference = _moved(reference, scale, offset)
    if len(mesh.faces) == 0:
        zero = dict.fromkeys(THRESHOLDS, 0.0)
        return Quality(FARTHEST, FARTHEST, zero, 0.0, 0.0, 0.0, 0.0, 0, False)
    mesh = _moved(mesh, scale, offset)
    ours, our_normals = surface_samples(mesh, points, seed + 1)
    theirs, their_normals = surface_samples(reference, points, seed)
    accuracy, completeness, cosine = distances(ours, our_normals, theirs, their_normals)

    rng = np.random.default_rng([seed, 2])
    low, high = np.minimum(mesh.bounds[0], reference.bounds[0]), np.maximum(mesh.bounds[1], reference.bounds[1])
    volume = rng.uniform(low, high, (points // 2, 3))
    near = theirs[::2] + rng.normal(scale=NEAR, size=theirs[::2].shape)
    return Quality(
        accuracy=float(accuracy.mean()),
        completeness=float(completeness.mean()),
        f_score={t: f_score(accuracy, completeness, t) for t in THRESHOLDS},
        volume_iou=iou(contains(mesh, volume), contains(reference, volume)),
        near_iou=iou(contains(mesh, near), contains(reference, near)),
        normal_consistency=cosine,
        silhouette_iou=iou(*silhouettes),
        components=components(mesh),
        watertight=bool(mesh.is_watertight),
    )


def evaluate_aligned(
    mesh: trimesh.Trimesh, reference: trimesh.Trimesh, points: int = POINTS, seed: int = 0
) -> dict[str, float]:
    """Chamfer-L1 and F-scores after `aligned`, named so ("aligned_chamfer_l1"): never to be mixed with `evaluate`'s."""
    if len(mesh.faces) == 0:
        return {"aligned_chamfer_l1": FARTHEST, **{f"aligned_f_score_{t:g}": 0.0 for t in THRESHOLDS}}
    scale, offset = normalisation(reference)
    reference = _moved(reference, scale, offset)
    ours = surface_samples(aligned(_moved(mesh, scale, offset), reference), points, seed + 1)
    accuracy, completeness, _ = distances(*ours, *surface_samples(reference, points, seed))
    scores = {f"aligned_f_score_{t:g}": f_score(accuracy, completeness, t) for t in THRESHOLDS}
    return {"aligned_chamfer_l1": float((accuracy.mean() + completeness.mean()) / 2), **scores}


def normalisation(reference: trimesh.Trimesh) -> tuple[float, F64]:
    """Scale and offset: p·scale + offset takes the reference's bounding box to [−1, 1] (its longest side)."""
    low, high = reference.bounds
    scale = 2 / float((high - low).max())
    return scale, -scale * (low + high) / 2


def _moved(mesh: trimesh.Trimesh, scale: float, offset: F64) -> trimesh.Trimesh:
    import trimesh

    return trimesh.Trimesh(mesh.vertices * scale + offset, mesh.faces, process=False)


def surface_samples(mesh: trimesh.Trimesh, count: int, seed: int) -> tuple[F64, F64]:
    """Area-weighted points (count, 3) on the surface and the unit normals (count, 3) of their faces."""
    corners = np.asarray(mesh.triangles, np.float64)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    rng = np.random.default_rng([seed, 1])
    # Stratified along the cumulative area: less noise than independent draws, the same expectation.
    target = (np.arange(count) + rng.random(count)) / count * area.sum()
    face = np.minimum(np.searchsorted(np.cumsum(area), target), len(area) - 1)
    u, v = rng.random((2, count))
    root = np.sqrt(u)[:, None]
    a, b, c = corners[face].transpose(1, 0, 2)
    points = (1 - root) * a + root * ((1 - v[:, None]) * b + v[:, None] * c)
    return points, cross[face] / np.maximum(area[face], 1e-300)[:, None]


def distances(ours: F64, our_normals: F64, theirs: F64, their_normals: F64) -> tuple[F64, F64, float]:
    """Distances (N,) from our points to theirs and (M,) back, and the normal consistency."""
    from scipy.spatial import cKDTree

    accuracy, nearest = cKDTree(theirs).query(ours)
    there = np.abs(np.einsum("ij,ij->i", our_normals, their_normals[nearest])).mean()
    completeness, nearest = cKDTree(ours).query(theirs)
    back = np.abs(np.einsum("ij,ij->i", their_normals, our_normals[nearest])).mean()
    return accuracy, completeness, float((there + back) / 2)


def f_score(accuracy: F64, completeness: F64, threshold: float) -> float:
    """Harmonic mean of the shares of our points and of theirs that are within `threshold` of the other surface."""
    precision, recall = float((accuracy <= threshold).mean()), float((completeness <= threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Intersection over union of two boolean arrays of one shape; 1 when both are empty."""
    union = float(np.logical_or(a, b).sum())
    return float(np.logical_and(a, b).sum()) / union if union else 1.0


_SKEW = np.array([0.2113, 0.3771, 0.9017])
"""Direction of the rays that decide what is inside: along no axis, so that they seldom run along a face."""


def contains(mesh: trimesh.Trimesh, points: F64) -> Bools:
    """Which of the points (N, 3) are inside a closed mesh: the parity of crossings along a ray (by Embree)."""
    low, high = mesh.bounds
    inside: Bools = ((points >= low) & (points <= high)).all(axis=1)
    some = np.flatnonzero(inside)
    if some.size:
        along = np.broadcast_to(_SKEW / np.linalg.norm(_SKEW), (some.size, 3))
        _, ray = mesh.ray.intersects_id(points[some], along, multiple_hits=True)
        inside[some] = np.bincount(ray, minlength=some.size) % 2 == 1
    return inside


def silhouette(mesh: trimesh.Trimesh, camera: Camera | None = None, size: int = 256) -> Bools:
    """Where the camera (None: no perspective, [−1, 1]²) sees the mesh: (size, size) bool, row 0 at the top."""
    camera = camera or Camera()
    if len(mesh.faces) == 0:
        return np.zeros((size, size), bool)
    centre = ((np.arange(size) + 0.5) / size * 2 - 1) * camera.half
    x, y = (axis.ravel() for axis in np.meshgrid(centre + camera.centre[0], -centre + camera.centre[1]))
    if math.isinf(camera.distance):
        start = np.stack([x, y, np.full(size * size, float(mesh.bounds[1, 2]) + camera.half)], axis=1)
        along = np.broadcast_to([0.0, 0.0, -1.0], start.shape)
    else:
        start = np.broadcast_to([0.0, 0.0, camera.distance], (size * size, 3))
        along = np.stack([x, y, np.full(size * size, -camera.distance)], axis=1)
    hit: Bools = mesh.ray.intersects_any(start, along)  # type: ignore[no-untyped-call]
    return hit.reshape(size, size)


def components(mesh: trimesh.Trimesh) -> int:
    """Number of parts connected through shared vertices; 0 for an empty mesh."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    faces = np.asarray(mesh.faces)
    if len(faces) == 0:
        return 0
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    start, end = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    graph = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(len(used), len(used)))
    return int(connected_components(graph, directed=False)[0])


def aligned(
    mesh: trimesh.Trimesh, reference: trimesh.Trimesh, points: int = 5000, rounds: int = 40, seed: int = 0
) -> trimesh.Trimesh:
    """`mesh` moved onto `reference` by the similarity that iterated closest points finds (Besl & McKay 1992; Umeyama
    1991), starting from the frame they share. For figures that are reported as aligned, and no others.
    """
    import trimesh
    from scipy.spatial import cKDTree

    theirs, _ = surface_samples(reference, points, seed)
    ours, _ = surface_samples(mesh, points, seed + 1)
    tree = cKDTree(theirs)
    transform = np.eye(4)
    for _ in range(rounds):
        moved = ours @ transform[:3, :3].T + transform[:3, 3]
        there = tree.query(moved)[1]
        back = cKDTree(moved).query(theirs)[1]
        # Pairs of both directions: with one only, the scale shrinks until every point has a neighbour.
        source, target = np.concatenate([ours, ours[back]]), np.concatenate([theirs[there], theirs])
        transform = _similarity(source, target)
    return trimesh.Trimesh(mesh.vertices @ transform[:3, :3].T + transform[:3, 3], mesh.faces, process=False)


def _similarity(source: F64, target: F64) -> F64:
    """The similarity (4, 4) that takes points (N, 3) closest to their targets (Umeyama 1991, eq. 40–43)."""
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    u, d, vt = np.linalg.svd((target - goal).T @ (source - middle) / len(source))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / ((source - middle) ** 2).sum(axis=1).mean())
    out = np.eye(4)
    out[:3, :3] = scale * rotation
    out[:3, 3] = goal - scale * rotation @ middle
    return out
