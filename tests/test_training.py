"""The training data and the trained graphs' contract. What needs torch skips, visibly, where torch is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkiln.engines.vecset import crop
from meshkiln.engines.vecset.crop import FILL, SIZE, recentre, window
from meshkiln.errors import BadPicture
from training import sdf, testset
from training.grammars import GRAMMARS, HELD_OUT
from training.grammars.clay import turn
from training.sampling import field_samples, gradient, place, surface
from training.shapes import generator, make

# --- the crop -------------------------------------------------------------------------------------------------------


def picture(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A red rectangle (top, bottom, left, right) on transparent blue."""
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[..., 2] = 255
    top, bottom, left, right = box
    rgba[top:bottom, left:right] = (255, 0, 0, 255)
    return rgba


@given(
    height=st.integers(4, 300),
    width=st.integers(4, 300),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(max_examples=60, deadline=None)
def test_the_cut_out_fills_four_fifths_of_the_crop_wherever_it_stood(
    height: int, width: int, corners: tuple[float, float, float, float]
) -> None:
    top, bottom = sorted(int(c * (height - 1)) for c in corners[:2])
    left, right = sorted(int(c * (width - 1)) for c in corners[2:])
    seen = recentre(picture(height, width, (top, bottom + 1, left, right + 1)))
    assert seen.shape == (4, SIZE, SIZE)
    mass = seen[3]
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    if mass.sum() > 1:
        assert abs((mass * x).sum() / mass.sum() - SIZE / 2) < 1
        assert abs((mass * y).sum() / mass.sum() - SIZE / 2) < 1
    extent = max(bottom + 1 - top, right + 1 - left)
    want = (bottom + 1 - top) * (right + 1 - left) * (FILL * SIZE / extent) ** 2
    if min(bottom - top, right - left) > extent / 8:
        assert mass.sum() == pytest.approx(want, rel=0.12)


def test_colour_under_zero_alpha_never_reaches_the_model() -> None:
    seen = recentre(picture(40, 60, (10, 20, 5, 30)))
    assert seen[2].max() == 0
    assert (seen[:3] <= seen[3:] + 1e-6).all()


def test_a_frame_point_finds_its_pixel_through_the_window() -> None:
    cx, cy, side = window(picture(100, 100, (20, 60, 40, 60))[..., 3])
    assert (cx, cy) == (50, 40)
    assert cy - FILL * side / 2 == pytest.approx(20)  # y = +0.8 is the top edge of the taller extent


def test_a_picture_without_an_object_is_refused() -> None:
    with pytest.raises(BadPicture):
        recentre(np.full((8, 8, 4), 127, np.uint8))


# --- the fields -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("primitive", "point", "distance"),
    [
        (sdf.box(0.5, 0.3, 0.2), (0.8, 0.7, 0.2), 0.5),
        (sdf.box(0.5, 0.3, 0.2, 0.1), (0.0, 0.0, 0.5), 0.3),
        (sdf.cylinder(0.4, 0.2), (0.7, 0.6, 0.0), 0.5),
        (sdf.torus(0.5, 0.1), (0.5, 0.0, 0.0), -0.1),
        (sdf.capsule(0, 1, 0, 0.2), (0.3, 1.4, 0.0), 0.3),
        (sdf.shell(np.array([(0.4, -1), (0.4, 1)], np.float32), 0.05), (0.0, 0.0, 0.5), 0.05),
        (sdf.prism(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float32), 0.5), (0.0, 0.0, 0.9), 0.4),
    ],
)
def test_distances_are_those_of_geometry(primitive: sdf.Primitive, point: tuple[float, ...], distance: float) -> None:
    assert float(primitive(np.array(point, np.float32)[:, None])[0]) == pytest.approx(distance, abs=1e-5)


def test_every_grammar_makes_shapes_that_have_a_surface_in_the_frame() -> None:
    seen: set[str] = set()
    for index in range(400):
        shape = make("train", index)
        if shape.kind in seen:
            continue
        seen.add(shape.kind)
        rng = generator("train", index, 1)
        own = surface(shape, 1024, rng)
        assert np.abs(shape.distance(own)).max() < 3e-3, shape.kind
        placed = place(shape, own, rng)
        points = placed.outward(own)
        assert np.abs(points[:2]).max() == pytest.approx(FILL, abs=1e-4)
        low, high = points.min(1), points.max(1)
        assert np.allclose(low, -high, atol=1e-4), shape.kind
    assert seen == set(GRAMMARS)


def test_a_field_sample_just_outside_the_surface_says_so() -> None:
    shape = make("train", 5)
    rng = generator("train", 5, 1)
    own = surface(shape, 1024, rng)
    placed = place(shape, own, rng)
    points = placed.outward(own)
    g = gradient(placed, points)
    outside = points + g / np.linalg.norm(g, axis=0) * 0.01
    assert (placed.distance(outside) > 0).mean() > 0.97
    queries, distance = field_samples(placed, points, rng, 256, 256)
    assert queries.shape == (512, 3)
    assert np.median(np.abs(distance[:256])) < np.median(np.abs(distance[256:]))


# --- what is held out -----------------------------------------------------------------------------------------------


def test_the_test_set_is_the_frozen_one() -> None:
    assert testset.digest() == testset.FROZEN


def test_training_draws_neither_held_out_grammars_nor_held_out_warps() -> None:
    for index in range(300):
        shape = make("train", index)
        assert shape.kind not in HELD_OUT
        assert not 0.2 < abs(shape.warp.taper) < 0.3
    for index in range(100):
        assert 0.2 <= abs(make("test", index).warp.taper) <= 0.3


def test_a_shape_is_the_same_every_time_and_an_item_matches_its_picture() -> None:
    a, b = testset.item(3), testset.item(3)
    assert np.array_equal(a.rgba, b.rgba)
    assert np.array_equal(a.surface, b.surface)
    assert np.abs(a.distance(a.surface)).max() < 5e-3
    assert (a.clean[..., 3] > 128).mean() > 0.02


def test_turning_about_y_by_a_quarter_takes_z_to_x() -> None:
    assert np.allclose(turn(0, np.pi / 2) @ np.array([0, 0, 1]), [1, 0, 0], atol=1e-6)


# --- the exported graphs --------------------------------------------------------------------------------------------

WEIGHTS = Path(crop.__file__).parent / "weights"


def test_the_weights_are_what_their_manifest_says_and_fit_the_wheel() -> None:
    files = json.loads((WEIGHTS / "manifest.json").read_text())["files"]
    assert set(files) == {p.name for p in WEIGHTS.iterdir() if p.suffix != ".json"}
    for name, digest in files.items():
        assert blake3((WEIGHTS / name).read_bytes()).hexdigest() == digest, name
    assert sum((WEIGHTS / name).stat().st_size for name in files) <= 25e6


def test_a_sphere_goes_through_the_autoencoder_and_comes_out_round() -> None:
    """Ties down frame, sign and slope of the logits, and that latents leave one graph in the other's units."""
    from training.evaluate import Weights

    weights = Weights(WEIGHTS)
    directions = np.random.default_rng(0).normal(size=(2048, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    features = weights.call("latents", z=weights.autoencode((directions * FILL).astype(np.float32), directions))
    for radius, inside in ((0.3, True), (0.72, True), (0.88, False), (0.97, False)):
        points = (directions[:512] * radius).astype(np.float32)[None]
        logits = weights.call("query", features=features, points=points)
        assert ((logits > 0) == inside).mean() > 0.97, radius
    at_surface = weights.call("query", features=features, points=(directions[:512] * FILL).astype(np.float32)[None])
    assert abs(float(np.median(at_surface))) < 1.0  # 1/60 of the frame


# --- what needs torch -----------------------------------------------------------------------------------------------


def test_muon_makes_an_update_whose_singular_values_are_all_near_one() -> None:
    torch = pytest.importorskip("torch", reason="training needs the train extra")
    from training.muon import orthogonalise

    torch.manual_seed(0)
    for shape in ((48, 16), (16, 48)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(*shape)).float())
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.4


def test_the_distance_bias_in_the_attention_is_the_distance() -> None:
    """With content switched off, a query attends to the anchor it stands on."""
    torch = pytest.importorskip("torch", reason="training needs the train extra")
    from training.autoencoder import Autoencoder

    model = Autoencoder().eval()
    with torch.no_grad():
        model.query_q.weight.zero_()
        model.log_beta_out.fill_(6.0)
        width = model.sizes.width
        features = model.features(torch.zeros(1, 100, 16))
        k, v = (x.clone() for x in features.split(width, dim=-1))
        for anchor in (0, 57, 99):
            point = model.anchors[anchor][None, None]
            near = model.query(torch.cat([k, v], -1), point)
            only = model.query(torch.cat([k, v[:, anchor : anchor + 1].expand_as(v)], -1), point)
            assert torch.allclose(near, only, atol=1e-4)


def test_a_leg_taken_up_again_goes_on_where_it_stopped(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs the train extra")
    from training.loop import Leg

    def leg() -> Leg:
        torch.manual_seed(0)
        return Leg(torch.nn.Linear(3, 3), tmp_path / "leg.pt", 60, ("weight",), 0.02, 1e-2)

    first = leg()
    for _ in range(3):
        first.step(first.model(torch.ones(2, 3)).square().mean())
    first.save()
    again = leg()
    assert again.steps == 3
    assert torch.equal(again.model.weight, first.model.weight)
    assert again.optimisers[1].state_dict()["state"][0]["step"] == 3


def test_a_legs_curve_is_kept_and_goes_on_when_it_is_taken_up_again(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs the train extra")
    from training.loop import Leg, Report

    for _ in range(2):
        leg = Leg(torch.nn.Linear(3, 3), tmp_path / "leg.pt", 60, ("weight",), 0.02, 1e-2)
        report = Report(leg, 2)
        for loss in (1.0, 2.0, 3.0, 5.0):
            leg.step(leg.model(torch.ones(2, 3)).square().mean())
            report({"loss": torch.tensor(loss)}, "a note")
        leg.save()
    head, *rows = (line.split(",") for line in (tmp_path / "leg.csv").read_text().splitlines())
    assert head == ["step", "share", "step_s", "loss"]
    assert [(row[0], row[3]) for row in rows] == [("2", "1.5000"), ("4", "4.0000"), ("6", "1.5000"), ("8", "4.0000")]


def test_a_student_begins_as_the_teacher_says_whatever_the_span() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch (pip install meshkiln[train])")
    from training.flow import Flow, Sizes
    from training.student import begin

    torch.manual_seed(0)
    teacher = Flow(Sizes(width=64, layers=2, encoder_layers=1)).eval()
    for p in teacher.parameters():
        torch.nn.init.normal_(p, std=0.05)
    x, t, tokens = torch.randn(3, 100, 16), torch.rand(3), torch.randn(3, 64, 64)
    with torch.no_grad():
        said = begin(teacher)(x, t, torch.tensor([0.0, 0.25, 1.0]), tokens)
        assert torch.allclose(said, teacher(x, t, tokens), atol=1e-5)


def test_a_leg_of_the_decoder_alone_leaves_the_latents_as_they_are(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch (pip install meshkiln[train])")
    from training.autoencoder import Autoencoder, loss
    from training.loop import Leg
    from training.train_autoencoder import HIDDEN

    torch.manual_seed(0)
    model = Autoencoder().train()
    model.freeze_encoder()
    surface, points, distance = torch.randn(2, 64, 6), torch.rand(2, 32, 3), torch.randn(2, 32)
    with torch.no_grad():
        latents, field = model.encode(surface)[0], model.query(model.features(torch.zeros(2, 100, 16)), points)
    leg = Leg(model, tmp_path / "autoencoder.pt", 1.0, HIDDEN, 0.02, 1e-3)
    logits, mean, log_variance = model(surface, points)
    leg.step(loss(logits, distance, mean, log_variance, 1e-3)[0])
    with torch.no_grad():
        assert torch.equal(model.encode(surface)[0], latents)
        assert not torch.allclose(model.query(model.features(torch.zeros(2, 100, 16)), points), field, atol=1e-4)


def test_patches_begin_as_the_query_head_at_the_nodes_and_between_its_values_there() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch (pip install meshkiln[train])")
    from training.autoencoder import Autoencoder
    from training.patches import CELLS, CORNERS, begin

    torch.manual_seed(0)
    autoencoder = Autoencoder().eval()
    patches = begin(autoencoder).eval()
    torch.nn.init.zeros_(patches.last.weight)
    features = autoencoder.features(torch.randn(2, 100, 16))
    cells = torch.tensor([[[3.0, 30.0, 17.0]], [[31.0, 0.0, 12.0]]])
    corners = (cells + torch.tensor(CORNERS)) * (2 / CELLS) - 1
    with torch.no_grad():
        at_nodes = autoencoder.query(features, corners)
        assert torch.allclose(patches(features, cells, torch.tensor(CORNERS))[:, 0], at_nodes, atol=1e-4)
        between = patches(features, cells, torch.rand(50, 3))[:, 0]
    assert (between <= at_nodes.max(1, keepdim=True).values + 1e-4).all()
    assert (between >= at_nodes.min(1, keepdim=True).values - 1e-4).all()


def test_a_straight_guided_path_is_followed_exactly_and_ends_where_the_velocity_leads() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch (pip install meshkiln[train])")
    from training.student import GRID, paths

    class Straight(torch.nn.Module):
        """Conditional velocity 1, unconditional 0.5, whatever the state."""

        def forward(self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(x) * tokens.mean((1, 2))[:, None, None]

        def null_tokens(self) -> torch.Tensor:
            return torch.full((64, 8), 0.5)

    noise = torch.randn(2, 10, 4)
    found = paths(Straight(), noise, torch.ones(2, 64, 8), guidance=3.0)
    t = torch.linspace(0, 1, GRID + 1)[None, :, None, None]
    assert torch.allclose(found, noise[:, None] + 2.0 * t, atol=1e-5)


def test_spans_lie_on_the_grid_and_cover_every_equal_division() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch (pip install meshkiln[train])")
    from training.student import GRID, ends

    first, last = ends(4000, torch.Generator().manual_seed(0))
    assert (first >= 0).all()
    assert (last > first).all()
    assert (last <= GRID).all()
    seen = set(zip(first.tolist(), last.tolist(), strict=True))
    for n in (1, 2, 4, 8):
        assert {(k * GRID // n, (k + 1) * GRID // n) for k in range(n)} <= seen


def test_halving_goes_where_two_half_steps_of_the_student_below_lead() -> None:
    torch = pytest.importorskip("torch", reason="training needs torch (pip install meshkiln[train])")
    from training.student import halved

    def growing(x: torch.Tensor, t: torch.Tensor, d: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Exact mean velocities of x' = x + t: any division of a span then leads to the same end."""
        t, d = t[:, None, None], d[:, None, None]
        return ((x + t + 1) * torch.exp(d) - (t + d) - 1 - x) / d

    x, t, d = torch.randn(3, 5, 2), torch.tensor([0.0, 0.25, 0.5]), torch.tensor([1.0, 0.125, 0.5])
    tokens = torch.zeros(3, 1, 1)
    assert torch.allclose(halved(growing, x, t, d, tokens), growing(x, t, d, tokens), atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(("learn", "span"), [("guidance", 1 / 16), ("halving", 1 / 16), ("reflow", 0.0)])
def test_what_each_way_of_distilling_learns_lies_on_the_teachers_path(learn: str, span: float, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch (pip install meshkiln[train])")
    from training.flow import Sizes
    from training.loop import Leg
    from training.student import GRID, Student
    from training.train_student import Lesson, Paths

    store = Paths.__new__(Paths)
    # A path that bends, the same for all: x(t) = t², so that its line from end to end has velocity 1 and no other has.
    store.points = [(torch.arange(GRID + 1) / GRID).square()[:, None, None].expand(-1, 4, 2)]
    store.tokens = [torch.zeros(3, 8)]
    student = Student(Sizes(width=64, layers=1, encoder_layers=1))
    lesson = Lesson(learn, store, Leg(student, tmp_path / "student.pt", 60, ("blocks.",), 0.02, 1e-3))
    x, t, d, tokens, velocity = lesson(np.random.default_rng(0), torch.Generator().manual_seed(0), 64)
    assert (d == span).all()
    assert tokens.shape == (64, 3, 8)
    line = torch.ones(64) if learn == "reflow" else 2 * t + d
    assert torch.allclose(velocity, line[:, None, None].expand_as(velocity), atol=1e-4)
    assert torch.allclose(x, (t if learn == "reflow" else t**2)[:, None, None].expand_as(x), atol=1e-4)
