"""The studio in a real Chromium against a real server: what a person does, and what then is to be seen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

import pictures
from browser import chromium, drop, only_from
from meshkiln.engines.inflate import ENGINE
from meshkiln.gateway.studio import PAGES
from serving import serving

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]
WAIT = 60_000


def mug(colour: tuple[int, int, int]) -> tuple[str, bytes, str]:
    return "mug.png", pictures.file(pictures.painted(pictures.mug(), colour, (240, 240, 240))), "image/png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("studio"), {"inflate": ENGINE}, engine="inflate") as http:
        yield str(http.base_url).rstrip("/")


@pytest.fixture
def context(browser: Browser, base: str) -> Iterator[BrowserContext]:
    made = browser.new_context(base_url=base, accept_downloads=True)
    made.set_default_timeout(WAIT)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, base: str) -> Iterator[Page]:
    found = context.new_page()
    elsewhere: list[str] = []
    only_from(found, base, elsewhere)
    found.goto("/")
    yield found
    assert elsewhere == []


def ready(page: Page) -> None:
    expect(page.locator("[data-item]").first).to_have_attribute("data-state", "succeeded", timeout=WAIT)


def test_a_dropped_picture_becomes_a_mesh_to_be_seen_and_downloaded_in_every_format(page: Page, tmp_path: Path) -> None:
    drop(page, [mug((180, 60, 40))])
    expect(page.locator("[data-stage]")).to_have_count(5)
    expect(page.locator("img.checker")).to_be_visible(timeout=WAIT)
    ready(page)
    expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
    for stage in ("matte", "inflate", "finish", "export"):
        expect(page.locator(f'[data-stage="{stage}"]')).to_have_class("chip computed")
    expect(page.locator("[data-watertight]")).to_have_attribute("data-watertight", "true")
    expect(page.locator(".provenance")).to_contain_text("Made from nothing")

    # The mug's own red, and not the ground alone.
    for look in ("Textured", "Wireframe", "Normals"):
        page.get_by_role("button", name=look).click()
        shown = np.asarray(Image.open(io.BytesIO(page.locator(".canvas canvas").screenshot())).convert("RGB"), float)
        assert shown.reshape(-1, 3).std(axis=0).max() > 8, look
        if look == "Textured":
            assert ((shown[..., 0] > 90) & (shown[..., 0] > 1.6 * shown[..., 2])).mean() > 0.02

    for format in ("glb", "obj", "stl", "ply", "3mf"):
        with page.expect_download() as coming:
            page.locator(f'[data-format="{format}"]').click()
        name = coming.value.suggested_filename
        assert name.startswith("mug.")
        path = tmp_path / name
        coming.value.save_as(path)
        scene = trimesh.load(io.BytesIO(path.read_bytes()), file_type="zip" if format == "obj" else format)
        assert (
            sum(len(mesh.faces) for mesh in scene.dump()) > 1000
            if isinstance(scene, trimesh.Scene)
            else scene.faces.any()
        )


def test_the_same_again_is_told_to_come_from_memory(page: Page) -> None:
    drop(page, [mug((40, 90, 180))])
    ready(page)
    drop(page, [mug((40, 90, 180))])
    expect(page.locator("[data-item]")).to_have_count(2)
    ready(page)
    expect(page.locator(".provenance")).to_contain_text("Served from")
    expect(page.locator(".provenance")).to_contain_text("saved")


def test_a_refresh_in_the_middle_loses_nothing(page: Page) -> None:
    drop(page, [mug((200, 150, 30)), mug((30, 150, 60))])
    expect(page.locator("[data-item]")).to_have_count(2)
    page.reload()
    expect(page.locator("[data-item]")).to_have_count(2)
    expect(page.locator('[data-state="succeeded"]')).to_have_count(2, timeout=WAIT)
    page.reload()
    expect(page.locator('[data-state="succeeded"]')).to_have_count(2)


def test_a_file_that_is_no_picture_is_refused_in_words(page: Page) -> None:
    drop(page, [("notes.txt", b"milk, eggs", "text/plain")])
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "failed", timeout=WAIT)
    expect(page.locator(".item .problem")).to_contain_text("picture cannot be used")


def test_what_is_cancelled_ends_and_can_be_tried_again(page: Page) -> None:
    # Held back on its way, so that it can be cancelled however fast the machine is.
    page.route("**/v1/generations?*", lambda route: None, times=1)
    drop(page, [mug((120, 20, 120))])
    page.get_by_role("button", name="Cancel mug.png").click()
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "cancelled")
    page.get_by_role("button", name="Try mug.png again").click()
    ready(page)


def test_another_tab_shows_the_same_queue(page: Page, context: BrowserContext) -> None:
    drop(page, [mug((20, 120, 120))])
    expect(page.locator("[data-item]")).to_have_count(1)
    other = context.new_page()
    other.goto("/")
    expect(other.locator("[data-item]")).to_have_count(1)
    expect(other.locator("[data-item]")).to_have_attribute("data-state", "succeeded", timeout=WAIT)
    page.get_by_role("button", name="Take mug.png off the list").click()
    expect(other.locator("[data-item]")).to_have_count(0)


def test_what_is_given_while_the_server_is_away_is_made_when_it_is_back(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    drop(page, [mug((90, 90, 20))])
    expect(page.locator(".away")).to_be_visible()
    context.set_offline(False)
    expect(page.locator(".away")).to_have_count(0, timeout=WAIT)
    ready(page)


def test_a_cutout_is_repaired_with_a_brush(page: Page) -> None:
    drop(page, [mug((150, 40, 90))])
    ready(page)
    page.get_by_role("button", name="Repair it").click()
    canvas = page.locator("dialog canvas")
    expect(page.get_by_role("button", name="Make a mesh of this")).to_be_enabled()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5, steps=4)
    page.mouse.up()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    with page.expect_request(lambda request: request.method == "POST") as posted:
        page.get_by_role("button", name="Make a mesh of this").click()
    assert "matte=alpha" in posted.value.url
    assert posted.value.headers["content-type"] == "image/png"
    expect(page.locator("[data-item]")).to_have_count(2)
    ready(page)


def test_a_verdict_and_its_reason_are_there_after_a_refresh(page: Page) -> None:
    drop(page, [mug((10, 60, 90))])
    ready(page)
    page.get_by_role("button", name="No, it is not good").click()
    page.get_by_label("Why?").fill("the handle is closed")
    page.get_by_role("button", name="Tell").click()
    expect(page.locator(".verdict [role=status]")).to_contain_text("Kept")
    page.reload()
    expect(page.get_by_label("Why?")).to_have_value("the handle is closed")


def test_the_gallery_shows_what_the_store_holds_and_lets_it_go(page: Page) -> None:
    drop(page, [mug((60, 60, 200))])
    ready(page)
    card = page.locator(".gallery li").first
    card.scroll_into_view_if_needed()
    expect(card.locator("img")).to_have_js_property("naturalWidth", 384, timeout=WAIT)
    count = page.locator(".gallery li").count()
    card.get_by_role("button", name="Delete").click()
    expect(page.locator(".gallery li")).to_have_count(count - 1)


@pytest.mark.parametrize("path", sorted(PAGES))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anybody(browser: Browser, base: str, path: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # The page's policy lets no script in that is not its own; the checker's has to be.
    context = browser.new_context(base_url=base, color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(path)
    expect(page.locator("main")).to_be_visible()
    if path == "/":
        page.locator("summary").click()
        drop(page, [mug((180, 60, 40))])
        ready(page)
        expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
    found = Axe().run(page).response["violations"]
    serious = [
        (one["id"], [node["html"][:120] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    context.close()
    assert serious == []


def test_the_page_can_be_used_within_a_second(context: BrowserContext, base: str) -> None:
    page = context.new_page()
    page.goto("/")
    page.reload()
    expect(page.get_by_role("button", name="Choose pictures")).to_be_visible()
    spent = page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")
    assert spent < 1000
