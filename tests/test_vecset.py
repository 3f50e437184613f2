"""The engine vecset: its description, its sampler, and, where the weights are, a picture becoming a mesh."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from canary import check
from meshkiln.engines.base import Work
from meshkiln.engines.sampling.batch import integrate
from meshkiln.engines.sampling.plan import Plan
from meshkiln.engines.sampling.trajectory import Ask, trajectory
from meshkiln.engines.vecset import ENGINE, crop, decode, runtime, sparse
from meshkiln.engines.vecset.camera import Camera, fit, looking
from meshkiln.engines.vecset.decode import uv_project
from meshkiln.engines.vecset.encode import window
from meshkiln.engines.vecset.floaters import without_floaters
from meshkiln.engines.vecset.grid import F32, Mesh
from meshkiln.engines.vecset.manifest import manifest
from meshkiln.engines.vecset.sample import noise
from meshkiln.errors import BadParameter, BadPicture, MeshkilnError, StageFailed
from meshkiln.kiln import Kiln
from meshkiln.store.memory import Memory
from meshkiln.workers.batching import group_of

needs_weights = pytest.mark.skipif(not manifest().files, reason="the weights have not been made: make train")


def test_the_description_loads_no_runtime() -> None:
    heavy = "numpy", "onnxruntime", "scipy", "cv2", "trimesh", "skimage"
    code = f"import sys, meshkiln.engines.vecset; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_reference_recipe_is_the_fields() -> None:
    recipe = ENGINE.canonical(ENGINE.recipes["reference"])
    assert (recipe["steps"], recipe["octree_resolution"], recipe["decoder"]) == (50, 256, "dense")
    assert recipe["guidance_scale"] != 1
    with pytest.raises(BadParameter, match="octree_resolution"):
        ENGINE.canonical({"octree_resolution": 8})


def test_noise_is_a_function_of_the_seed_alone() -> None:
    golden = [0.11655651777982712, -0.6835324168205261, 0.09819597750902176, -0.2928107678890228]
    np.testing.assert_allclose(noise(0, (4,)), golden, rtol=1e-6)
    many = noise(7, (400, 50))
    assert many.mean() == pytest.approx(0, abs=0.03)
    assert many.std() == pytest.approx(1, abs=0.02)
    assert np.abs(many).max() < 6
    assert np.array_equal(noise(7, (400, 50)), many)
    assert abs(np.corrcoef(many.ravel(), noise(8, (400, 50)).ravel())[0, 1]) < 0.03


def counted(asked: Sequence[tuple[int, Ask]]) -> list[F32]:
    """A network with a known solution: x' = a − x, where a is 1 with the condition and 0 without."""
    return [np.float32(ask.conditional) - ask.x for _, ask in asked]


def test_defaults_are_the_recipe_fast() -> None:
    assert ENGINE.canonical({}) == ENGINE.canonical(ENGINE.recipes["fast"])
    assert set(ENGINE.recipes) == {"reference", "balanced", "fast"}


def test_fast_and_balanced_share_their_latents() -> None:
    """Who asks for the one after the other pays for decoding alone: what `sample` is given is the same."""
    fast, balanced = (ENGINE.canonical(ENGINE.recipes[name]) for name in ("fast", "balanced"))
    assert [s.mattering(fast) == s.mattering(balanced) for s in ENGINE.stages[:5]] == [True] * 4 + [False]


def test_recipes_say_everything_that_matters_to_sampling_and_decoding() -> None:
    """So that no recipe changes when a default does, and a recipe's name adds nothing to its parameters."""
    deciding = {name for stage in ENGINE.stages[2:5] for name in stage.parameters} - {"seed"}
    for recipe in ENGINE.recipes.values():
        assert set(recipe) == deciding


def test_what_is_within_a_student_is_not_in_its_key() -> None:
    sample_stage = ENGINE.stages[3]
    with_student = {**ENGINE.canonical({}), "model": "student"}
    assert set(sample_stage.mattering(with_student)) == {"model", "steps", "seed", "numeric"}
    assert "guidance_scale" in sample_stage.mattering({**with_student, "model": "teacher"})


def test_a_student_is_offered_where_there_is_one_and_takes_8_steps() -> None:
    limited = replace(ENGINE, parameters=tuple(replace(p, choices=()) for p in ENGINE.parameters))
    with pytest.raises(BadParameter, match="steps=9 is more than 8, the most with model=student"):
        limited.canonical({"model": "student", "steps": 9})
    assert limited.canonical({"model": "teacher", "steps": 9})["steps"] == 9
    if "student.onnx" not in manifest().files:
        with pytest.raises(BadParameter, match="one of teacher"):
            ENGINE.canonical({"model": "student"})


def test_a_numeric_class_that_was_measured_and_found_wanting_is_refused_with_the_reason() -> None:
    for stage in ENGINE.stages[2:5]:
        assert stage.mattering(ENGINE.canonical({}))["numeric"] == stage.numeric == "fp32"
    for kind, reason in (("int8", "more than a tenth of a cell"), ("bf16", "no such matrix product"), ("fp8", "fp32$")):
        with pytest.raises(BadParameter, match=f"numeric='{kind}' is not one of .*{reason}"):
            ENGINE.canonical({"numeric": kind})


def test_what_a_decoder_costs_is_learned_of_it_alone() -> None:
    """Else one dense grid would have every quick generation after it refused as too late for its deadline."""
    decode_stage = ENGINE.stages[4]

    def group(**given: object) -> object:
        return group_of(decode_stage, decode_stage.mattering(ENGINE.canonical(given)))

    assert group(seed=1) == group(seed=2)
    assert len({group(decoder=name, octree_resolution=n) for name in ("sparse", "dense") for n in (64, 256)}) == 4


def test_floaters_go_and_cavities_stay() -> None:
    ball, crumb, second = (trimesh.creation.icosphere(2, r) for r in (1.0, 0.1, 0.5))
    crumb.apply_translation((2, 0, 0))
    second.apply_translation((0, 3, 0))
    cavity = trimesh.creation.icosphere(2, 0.4)
    cavity.invert()
    scene = trimesh.util.concatenate([crumb, ball, second, cavity])
    mesh = without_floaters(Mesh(scene.vertices.astype(np.float32), scene.faces.astype(np.int32)))
    kept = trimesh.Trimesh(*mesh, process=False)
    assert kept.is_watertight
    assert kept.bounds[1] == pytest.approx([1, 3.5, 1], abs=0.01)
    assert kept.volume == pytest.approx(ball.volume + second.volume + cavity.volume, rel=1e-5)
    assert len(without_floaters(Mesh.empty()).faces) == 0


def pixel_of(project: np.ndarray, point: tuple[float, float, float], pixels: np.ndarray) -> tuple[float, float]:
    u, v, s = project @ (*point, 1)
    return float(u / s * pixels.shape[1]), float(v / s * pixels.shape[0])


def test_a_vertex_finds_its_pixel() -> None:
    pixels = np.zeros((60, 100, 4), np.uint8)
    pixels[10:50, 20:60] = 255
    straight = Camera(0.0, (0.0, 0.0), 1.0)
    project = uv_project(straight, window(pixels))
    assert pixel_of(project, (0, 0, 0.3), pixels) == pytest.approx((40, 30))
    assert pixel_of(project, (crop.FILL, crop.FILL, -0.2), pixels) == pytest.approx((60, 10))
    near = uv_project(Camera(0.4, (0.1, -0.2), 1.2), window(pixels))
    expected = Camera(0.4, (0.1, -0.2), 1.2).crop(np.array([[0.3, 0.2, 0.5]]))[0]
    assert pixel_of(near, (0.3, 0.2, 0.5), pixels) == pytest.approx(expected * (25, -25) + (40, 30))


def fine(*boxes: tuple[tuple[float, float, float], tuple[float, float, float]]) -> Mesh:
    """Boxes (extents, middle), with vertices close enough to be splatted."""
    parts = [trimesh.creation.box(extents, trimesh.transformations.translation_matrix(at)) for extents, at in boxes]
    shape = trimesh.util.concatenate(parts).subdivide_to_size(0.02)
    return Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int32))


def seen_by(camera: Camera, mesh: Mesh, size: int = 128) -> np.ndarray:
    """The mesh's outline (size, size)."""
    column, row = ((camera.crop(mesh.vertices) * (1, -1) + 1) * size / 2).astype(int).T
    outline = np.zeros((size, size), bool)
    outline[row, column] = True
    return outline


@pytest.mark.parametrize("nearness", [0.0, 0.2, 0.4])
def test_the_camera_is_found_from_the_outline(nearness: float) -> None:
    """A bar that runs towards the viewer, off the axis, looks different from near and far."""
    mesh = fine(((0.3, 0.3, 1.6), (0.5, 0.2, 0)), ((1.6, 0.4, 0.4), (0, 0, 0)))
    true = looking(mesh.vertices, nearness)
    found = fit(mesh, seen_by(true, mesh))
    assert found.nearness == pytest.approx(nearness, abs=0.051)
    assert np.abs(found.crop(mesh.vertices) - true.crop(mesh.vertices)).max() < 0.04
    assert np.abs(true.crop(mesh.vertices)).max() == pytest.approx(crop.FILL)
    assert fit(Mesh.empty(), seen_by(true, mesh)).nearness == 0
    assert fit(mesh, np.zeros((128, 128), bool)) == looking(mesh.vertices, 0.0)


def test_a_limb_that_the_mesh_lacks_does_not_move_the_camera() -> None:
    """By its extents the mesh would be seen half as large again as the picture shows it, and lower."""
    body, limb = ((1.0, 0.9, 0.5), (0, -0.35, 0)), ((0.06, 0.7, 0.06), (0.2, 0.45, 0))
    whole, maimed = fine(body, limb), fine(body)
    true = looking(whole.vertices, 0.2)
    found = fit(maimed, seen_by(true, whole))
    off = np.abs(found.crop(maimed.vertices) - true.crop(maimed.vertices)).max()
    assert (
        off
        < 0.08
        < 0.3
        < np.abs(looking(maimed.vertices, 0.2).crop(maimed.vertices) - true.crop(maimed.vertices)).max()
    )


def disc(size: int = 96) -> np.ndarray:
    """A shaded ball's picture."""
    y, x = np.mgrid[:size, :size] / (size / 2) - 1
    z = np.sqrt(np.maximum(0.64 - x**2 - y**2, 0))
    light = np.clip(0.3 + 0.7 * (0.4 * x - 0.5 * y + 0.77 * z) / 0.8, 0, 1)
    rgb = (light[..., None] * [200, 120, 90]).astype(np.uint8)
    return np.dstack([rgb, np.where(z > 0, 255, 0).astype(np.uint8)])


def chain(pixels: list[np.ndarray], **parameters: object) -> list[dict[str, np.ndarray]]:
    values: list = [{"pixels": p} for p in pixels]
    given = ENGINE.canonical(parameters)
    for stage in ENGINE.stages[2:5]:
        values = stage.load()([Work((value,), given) for value in values])
    return values


def close(recorded: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> bool:
    return all(np.allclose(recorded[name], now[name], rtol=1e-4, atol=1e-5) for name in recorded)


def test_canaries() -> None:
    """What the stages compute beside their graphs (whose digests are in their fingerprints)."""
    encode_stage, sample_stage, decode_stage = ENGINE.stages[2:5]
    picture = disc()[:, 10:]
    model_input = crop.recentre(picture)[:, ::8, ::8].copy()
    check(encode_stage, {"disc": {"input": model_input, "window": window(picture)}}, close)
    plans = [Plan(3), Plan(3, guidance_scale=2.0), Plan(12, solver="adams", guidance_scale=2.0, cache_threshold=0.05)]
    plans += [Plan(4, solver="heun", shift=3.0, guidance_scale=2.0, guidance_end=0.5), Plan(2, model="student")]
    ends = integrate([trajectory(plan, noise(5, (2, 2))) for plan in plans], counted)
    check(sample_stage, {"linear": {"end": np.stack(ends)}}, close)

    def torus(points: F32) -> F32:
        return 60 * (0.2 - np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.5, points[:, 2]))

    mesh = without_floaters(sparse.decode_one(torus, 50)[0])
    summary = {"counts": np.array([len(mesh.vertices), len(mesh.faces)]), "mean": np.abs(mesh.vertices).mean(axis=0)}
    check(decode_stage, {"torus": summary}, close)


@needs_weights
def test_a_ball_becomes_a_closed_mesh_about_as_wide_as_the_picture_says() -> None:
    (mesh,) = chain([disc()], steps=4, octree_resolution=64)
    solid = trimesh.Trimesh(mesh["vertices"], mesh["faces"], process=False)
    assert solid.is_watertight
    assert solid.volume > 0
    assert solid.extents[:2] == pytest.approx([1.6, 1.6], abs=0.3)


@needs_weights
@pytest.mark.parametrize(
    ("feature", "raised", "told"),
    [(0.0, BadPicture, "give one that shows a solid object"), (np.nan, StageFailed, "not finite")],
)
def test_an_empty_field_is_said_of_the_picture_and_numbers_that_are_none_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, feature: float, raised: type[MeshkilnError], told: str
) -> None:
    def run(name: str, **inputs: F32) -> F32:
        out = network(name, **inputs)
        return np.full_like(out, feature) if name == "latents.onnx" else out

    network = runtime.run
    monkeypatch.setattr(runtime, "run", run)
    monkeypatch.setattr(decode, "surface", lambda *asked: Mesh.empty())
    picture = io.BytesIO()
    Image.fromarray(disc()).save(picture, "PNG")
    with contextlib.closing(Kiln(ENGINE, Memory())) as kiln, pytest.raises(raised, match=told) as refused:
        kiln.generate(picture.getvalue(), steps=1, octree_resolution=16)
    assert type(refused.value) is raised


@needs_weights
def test_same_request_same_bytes_and_another_seed_another_mesh() -> None:
    first, again, other = (chain([disc()], steps=2, octree_resolution=48, seed=s)[0] for s in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert first["vertices"].shape != other["vertices"].shape or not np.allclose(first["vertices"], other["vertices"])


@needs_weights
def test_a_batch_agrees_with_each_alone_to_a_tenth_of_a_voxel() -> None:
    from scipy.spatial import cKDTree

    pictures = [disc(), disc()[:, :60], np.flipud(disc(70))]
    together = chain(pictures, steps=4, octree_resolution=64)
    for mesh, picture in zip(together, pictures, strict=True):
        (alone,) = chain([picture], steps=4, octree_resolution=64)
        distance, _ = cKDTree(alone["vertices"]).query(mesh["vertices"])
        assert (distance < 0.1 * 2 / 64).mean() >= 0.999


@needs_weights
def test_requests_of_any_recipe_and_seed_share_a_batch_and_end_where_they_would_alone() -> None:
    """Other lengths, solvers, guidance, caching and seeds in one batch, and the student where there is one."""
    (encoded,) = ENGINE.stages[2].load()([Work(({"pixels": disc()},), {})])
    asked: list[dict[str, object]] = [
        {**ENGINE.recipes["fast"], "seed": 1},
        {**ENGINE.recipes["balanced"], "seed": 2},
        {**ENGINE.recipes["reference"], "steps": 12, "seed": 3},
        {**ENGINE.recipes["fast"], "seed": 4},
        {**ENGINE.recipes["balanced"], "solver": "heun", "steps": 5, "guidance_scale": 1.0, "seed": 2},
        *({"model": "student", "steps": n, "seed": n} for n in (1, 3) if "student.onnx" in manifest().files),
    ]
    works = [Work((encoded,), ENGINE.stages[3].mattering(ENGINE.canonical(given))) for given in asked]
    compute = ENGINE.stages[3].load()
    for work, together in zip(works, compute(works), strict=True):
        (alone,) = compute([work])
        assert isinstance(alone, dict)
        assert isinstance(together, dict)
        np.testing.assert_allclose(together["latents"], alone["latents"], atol=2e-3)


@needs_weights
def test_both_decoders_give_one_surface() -> None:
    from scipy.spatial import cKDTree

    whole, found = (chain([disc()], steps=4, octree_resolution=64, decoder=name)[0] for name in ("dense", "sparse"))
    for a, b in ((whole, found), (found, whole)):
        assert (cKDTree(b["vertices"]).query(a["vertices"])[0] < 0.1 * 2 / 64).mean() >= 0.999
