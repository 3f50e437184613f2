"""The studio in a real Chromium against a real server: from a picture to its mesh, and what may happen in between."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import trimesh

import pictures

pytest.importorskip("playwright.sync_api", reason="the browser's driver is not installed: the studio is not tested")

from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from browser import drop, inked
from serving import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]
WAIT = 60_000


def mug(colour: tuple[int, int, int], name: str = "mug") -> tuple[str, bytes, str]:
    return (
        f"{name}.png",
        pictures.file(pictures.painted(pictures.mug(), colour, (240, 240, 240))),
        "image/png",
    )


def ready(page: Page) -> None:
    expect(page.locator("[data-item]").first).to_have_attribute("data-state", "succeeded", timeout=WAIT)


def seen(said: Locator, what: str) -> None:
    """Whether it is told to who looks as well as to who listens."""
    expect(said).to_contain_text(what)
    box = said.bounding_box()
    assert box is not None
    assert box["width"] > 100


def held(page: Page) -> None:
    expect(page.locator("[data-item]").first).to_have_attribute("data-state", "held", timeout=WAIT)


def test_the_cutout_comes_first_and_what_is_kept_becomes_a_mesh_in_every_format(page: Page, tmp_path: Path) -> None:
    drop(page, [mug((180, 60, 40))])
    expect(page.locator("[data-stage]")).to_have_count(5)
    held(page)
    expect(page.locator("img.checker")).to_be_visible()
    expect(page.locator(".item .state")).to_have_text("Your turn")
    # That it is ready is said with the picture's name at the foot of the page, and not here once more.
    expect(page.locator(".item .now")).to_have_text("The cut-out is ready: it waits for you")
    expect(page.locator(".item .now").get_by_role("status")).to_have_count(0)
    expect(page.locator('[data-stage="matte"]')).to_have_class("chip computed")
    # In plain words: fingers and keyboards see no tooltip.
    expect(page.locator('[data-stage="matte"]')).to_contain_text("Cut-out")
    expect(page.locator('[data-stage="inflate"]')).to_have_class("chip ")
    page.get_by_role("button", name="Keep it").click()
    ready(page)
    expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
    for stage in ("matte", "inflate", "finish", "export"):
        expect(page.locator(f'[data-stage="{stage}"]')).to_have_class("chip computed")
    expect(page.locator("[data-watertight]")).to_have_attribute("data-watertight", "true")
    expect(page.locator(".facts")).to_contain_text("mm")
    expect(page.locator(".provenance")).to_contain_text("Made from nothing")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.evaluate("scrollTo(0, 0)")
    expect(page.get_by_role("button", name="Download GLB")).to_be_in_viewport(ratio=1)

    for format in ("glb", "obj", "stl", "ply", "3mf"):
        with page.expect_download() as coming:
            page.locator(f'[data-format="{format}"]').click()
        name = coming.value.suggested_filename
        assert name.startswith("mug.")
        path = tmp_path / name
        coming.value.save_as(path)
        scene = trimesh.load(io.BytesIO(path.read_bytes()), file_type="zip" if format == "obj" else format)
        meshes = scene.dump() if isinstance(scene, trimesh.Scene) else [scene]
        assert sum(len(mesh.faces) for mesh in meshes) > 1000, format


@pytest.mark.usefixtures("by_itself")
def test_the_mesh_is_seen_textured_as_wires_as_normals_and_turning(page: Page) -> None:
    drop(page, [mug((170, 50, 30))])
    ready(page)
    expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
    canvas, looks = page.locator(".canvas canvas"), {}
    for look in ("Textured", "Clay", "Wireframe", "Normals"):
        page.get_by_role("button", name=look).click()
        looks[look] = inked(canvas)
        assert looks[look].reshape(-1, 3).std(axis=0).max() > 8, look
    for one, other in (("Textured", "Clay"), ("Textured", "Wireframe"), ("Wireframe", "Normals")):
        assert np.abs(looks[one] - looks[other]).max() > 40, (one, other)
    # Wires, and no patch of their colour: what is on the mug's belly differs from the commonest of it.
    height, width, _ = looks["Wireframe"].shape
    belly = looks["Wireframe"][height // 2 - 30 : height // 2 + 30, width // 2 - 30 : width // 2 + 30]
    assert (np.abs(belly - np.median(belly, axis=(0, 1))).max(axis=-1) > 12).mean() > 0.3
    # The mug's own red, and not the ground alone.
    red = looks["Textured"]
    assert ((red[..., 0] > 90) & (red[..., 0] > 1.6 * red[..., 2])).mean() > 0.02

    host = page.locator(".canvas")
    expect(page.get_by_role("button", name="Turntable")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Turntable").click()
    before, drawn = inked(canvas), int(host.get_attribute("data-drawn") or 0)
    until(lambda: int(host.get_attribute("data-drawn") or 0) > drawn + 10)
    assert np.abs(inked(canvas) - before).max() > 20
    page.get_by_role("button", name="Turntable").click()
    # Where the system chooses the colours, what is chosen is still told apart.
    page.emulate_media(forced_colors="active")
    grounds = [
        page.get_by_role("button", name=look).evaluate("button => getComputedStyle(button).backgroundColor")
        for look in ("Normals", "Clay")
    ]
    assert grounds[0] != grounds[1]
    page.emulate_media(forced_colors="none")
    # By keyboard it turns as well, and who does not see it can ask what is seen.
    page.get_by_role("button", name="Front").click()
    expect(
        page.get_by_role("img", name="The mesh of mug.png with a colour for each direction, seen from the front")
    ).to_be_visible()
    before = inked(canvas)
    host.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    until(lambda: bool(np.abs(inked(canvas) - before).max() > 20))
    expect(page.get_by_role("img", name="seen from the right")).to_be_visible()


@pytest.mark.usefixtures("by_itself")
def test_the_same_again_is_told_to_come_from_memory(page: Page) -> None:
    drop(page, [mug((40, 90, 180))])
    ready(page)
    drop(page, [mug((40, 90, 180))])
    expect(page.locator("[data-item]")).to_have_count(2)
    ready(page)
    expect(page.locator(".provenance")).to_contain_text("Served from memory in")
    expect(page.locator(".provenance")).to_contain_text("saved")
    expect(page.locator('[data-stage="export"]').first).to_have_text("Colours and file in memory")


@pytest.mark.usefixtures("by_itself")
def test_a_refresh_in_the_middle_loses_nothing(page: Page) -> None:
    drop(page, [mug((200, 150, 30)), mug((30, 150, 60))])
    expect(page.locator("[data-item]")).to_have_count(2)
    page.reload()
    expect(page.locator("[data-item]")).to_have_count(2)
    expect(page.locator('[data-state="succeeded"]')).to_have_count(2, timeout=WAIT)
    page.reload()
    expect(page.locator('[data-state="succeeded"]')).to_have_count(2)


@pytest.mark.usefixtures("by_itself")
def test_what_is_on_the_list_survives_a_refresh_that_comes_before_its_picture_is_written(page: Page) -> None:
    # A disk that takes its time: what was put is kept once its transaction is complete, and not before.
    page.evaluate(
        """() => {
            const put = IDBObjectStore.prototype.put;
            IDBObjectStore.prototype.put = function (...given) {
                const until = performance.now() + 1500;
                const busy = () => performance.now() < until && (this.count().onsuccess = busy);
                busy();
                return put.apply(this, given);
            };
        }"""
    )
    page.route("**/v1/generations?*", lambda route: None, times=1)
    drop(page, [mug((200, 151, 31))])
    expect(page.locator("[data-item]")).to_have_count(1)
    page.reload()
    ready(page)


@pytest.mark.usefixtures("by_itself")
def test_an_answer_that_breaks_off_is_asked_for_again(page: Page) -> None:
    page.evaluate(
        """() => {
            const whole = Response.prototype.json;
            Response.prototype.json = function () {
                if (!this.url.includes("/v1/generations?")) return whole.call(this);
                Response.prototype.json = whole;
                return Promise.reject(new TypeError("network error"));
            };
        }"""
    )
    drop(page, [mug((201, 152, 32))])
    ready(page)


def test_a_cutout_that_waits_for_an_answer_still_waits_after_a_refresh_and_in_another_tab(
    page: Page, context: BrowserContext
) -> None:
    drop(page, [mug((70, 150, 30))])
    held(page)
    page.reload()
    held(page)
    other = context.new_page()
    other.goto("/")
    held(other)
    other.get_by_role("button", name="Keep it").click()
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "succeeded", timeout=WAIT)


def test_who_does_not_want_to_be_asked_is_not_asked_again(page: Page) -> None:
    drop(page, [mug((70, 10, 130))])
    held(page)
    page.get_by_label("Go on by itself next time").check()
    page.get_by_role("button", name="Keep it").click()
    ready(page)
    page.reload()
    drop(page, [mug((71, 11, 131))])
    expect(page.locator("[data-item]")).to_have_count(2)
    ready(page)


def test_a_file_that_is_no_picture_is_refused_in_words(page: Page) -> None:
    drop(page, [("notes.txt", b"milk, eggs", "text/plain"), ("empty.png", b"", "image/png")])
    expect(page.locator('[data-state="failed"]')).to_have_count(2, timeout=WAIT)
    empty, notes = page.locator(".item").all()
    expect(empty.locator(".problem")).to_contain_text("The file is empty")
    expect(notes.locator(".problem")).to_contain_text("picture cannot be used")
    # No broken image, and no brush for it.
    expect(notes.locator("img")).to_have_count(0)
    expect(page.get_by_role("button", name="Repair it")).to_have_count(0)
    # The same would be refused again: what helps is another one.
    expect(page.get_by_role("button", name=re.compile("^Try "))).to_have_count(0)
    for item in (empty, notes):
        with page.expect_file_chooser():
            item.get_by_role("button", name="Choose another picture").click()


@pytest.mark.usefixtures("by_itself")
def test_of_several_files_the_first_that_can_be_used_is_shown(page: Page) -> None:
    unusable = [("empty.png", b"", "image/png"), ("notes.txt", b"milk", "text/plain")]
    drop(page, [*unusable, mug((34, 140, 99)), mug((35, 140, 99), "cup")])
    expect(page.locator('[data-state="failed"]')).to_have_count(2, timeout=WAIT)
    expect(page.locator(".item.open .name")).to_have_text("mug.png")
    # What was looked at is what is looked at after a refresh.
    page.get_by_role("button", name="notes.txt Failed").click()
    page.reload()
    expect(page.locator(".item.open .name")).to_have_text("notes.txt")
    # Also when that comes before anything is painted, which a busy browser may take its time for: it is kept at once.
    page.evaluate("window.requestAnimationFrame = window.setTimeout = () => 0")
    page.get_by_role("button", name="notes.txt Failed").click()
    assert page.evaluate("sessionStorage.getItem('meshkiln.open')") == '{"chosen":null}'
    page.reload()
    expect(page.locator("[data-item]")).to_have_count(4)
    expect(page.locator(".item.open")).to_have_count(0)


@pytest.mark.usefixtures("by_itself")
def test_a_file_that_goes_before_it_was_sent_is_made_all_the_same(
    page: Page, context: BrowserContext, tmp_path: Path
) -> None:
    name, data, _ = mug((91, 60, 20))
    (tmp_path / name).write_bytes(data)
    context.set_offline(True)
    page.locator("#pick").set_input_files(tmp_path / name)
    expect(page.locator(".away")).to_be_visible()
    (tmp_path / name).unlink()
    context.set_offline(False)
    ready(page)


def test_a_file_that_cannot_be_read_is_said_to_be_so(page: Page, tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    gone.write_bytes(b"picture")
    # The browser has the file's name, and reads it when it is asked for its bytes.
    page.evaluate(
        """() => {
            const read = Blob.prototype.arrayBuffer;
            const gone = new Promise(go => (window.go = go));
            Blob.prototype.arrayBuffer = async function () { await gone; return read.call(this); };
        }"""
    )
    page.locator("#pick").set_input_files(gone)
    gone.unlink()
    page.evaluate("go()")
    expect(page.locator(".item .problem")).to_contain_text("The file cannot be read")
    expect(page.locator(".away")).to_have_count(0)


@pytest.mark.usefixtures("by_itself")
def test_what_is_cancelled_ends_and_can_be_tried_again(page: Page) -> None:
    # Held back on its way, so that it can be cancelled however fast the machine is.
    page.route("**/v1/generations?*", lambda route: None, times=1)
    drop(page, [mug((120, 20, 120))])
    page.get_by_role("button", name="Cancel mug.png").click()
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "cancelled")
    page.get_by_role("button", name="Try mug.png again").click()
    ready(page)


def test_what_is_cancelled_while_nothing_is_accepted_says_no_more_that_it_will_be_asked_again(page: Page) -> None:
    kind = "urn:meshkiln:problem:intake-paused"
    refused = {"type": kind, "title": "Nothing new is accepted for now", "detail": "intake is paused; 3 go on"}
    page.route(
        "**/v1/generations?*", lambda route: route.fulfill(status=503, json=refused, headers={"retry-after": "30"})
    )
    drop(page, [mug((122, 22, 120))])
    # In the words of somebody who waits, and not of who runs the server.
    expect(page.locator(".item .problem")).to_contain_text("your picture is kept here, and is sent as soon as it does")
    expect(page.locator(".item .problem")).not_to_contain_text("intake")
    counting = page.locator(".item .asking")
    expect(counting).to_contain_text(re.compile(r"Asking again in (30|2\d) s"))
    expect(counting).to_contain_text(re.compile(r"in 2\d s"))
    # A second that passes is not spoken.
    assert counting.evaluate("node => node.closest('[role=alert], [role=status], [aria-live]')") is None
    with page.expect_request("**/v1/generations?*"):
        page.get_by_role("button", name="Ask now for mug.png").click()
    expect(page.locator(".item .state")).to_have_text("Waiting")
    # Why it waits is said once.
    expect(page.locator(".item .problem").get_by_text("The server takes no new work for now")).to_be_visible()
    expect(page.locator(".item .now")).to_have_count(0)
    page.get_by_role("button", name="Cancel mug.png").click()
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "cancelled")
    expect(page.locator(".item .problem")).to_have_count(0)


@pytest.mark.usefixtures("by_itself")
def test_what_the_server_works_on_is_cancelled_there(page: Page) -> None:
    # Work that lasts for longer than a person, or a busy browser, takes to click.
    page.locator("summary").click()
    page.get_by_label("Engine", exact=True).select_option("vecset")
    page.get_by_label("Recipe", exact=True).select_option("reference")
    with page.expect_response(lambda answer: answer.request.method == "POST") as posted:
        drop(page, [mug((121, 21, 121))])
    place = posted.value.json()["links"]["self"]
    page.get_by_role("button", name="Cancel mug.png").click()
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "cancelled")
    assert page.request.get(place).json()["state"] == "cancelled"


@pytest.mark.usefixtures("by_itself")
def test_another_tab_shows_the_same_queue(page: Page, context: BrowserContext) -> None:
    drop(page, [mug((20, 120, 120))])
    expect(page.locator("[data-item]")).to_have_count(1)
    other = context.new_page()
    other.goto("/")
    expect(other.locator("[data-item]")).to_have_count(1)
    expect(other.locator("[data-item]")).to_have_attribute("data-state", "succeeded", timeout=WAIT)
    page.get_by_role("button", name="Take mug.png off the list").click()
    expect(other.locator("[data-item]")).to_have_count(0)


@pytest.mark.usefixtures("by_itself")
def test_what_is_given_while_the_server_is_away_is_made_when_it_is_back(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    drop(page, [mug((90, 90, 20))])
    expect(page.locator(".away")).to_be_visible()
    context.set_offline(False)
    expect(page.locator(".away")).to_have_count(0, timeout=WAIT)
    ready(page)


@pytest.mark.usefixtures("by_itself")
def test_a_verdict_and_its_reason_are_there_after_a_refresh(page: Page) -> None:
    drop(page, [mug((10, 60, 90))])
    ready(page)
    page.get_by_role("button", name="No, it is not good").click()
    page.get_by_label("Why?").fill("the handle is closed")
    page.get_by_role("button", name="Tell").click()
    expect(page.locator(".verdict [role=status]")).to_contain_text("Kept with this mesh: “the handle is closed”")
    page.reload()
    expect(page.get_by_label("Why?")).to_have_value("the handle is closed")


@pytest.mark.usefixtures("by_itself")
def test_a_verdict_that_is_not_kept_is_not_shown_as_kept_and_a_new_one_is_not_lost_to_an_old_one(page: Page) -> None:
    held_back: list[Route] = []
    where = "**/feedback"
    page.route(where, lambda route: held_back.append(route) if route.request.method == "GET" else route.fallback())
    drop(page, [mug((10, 61, 90))])
    ready(page)
    good, bad = (page.get_by_role("button", name=name) for name in ("Yes, it is good", "No, it is not good"))
    good.click()
    told = page.locator(".verdict [role=status]")
    expect(told).to_contain_text("Kept with this mesh")
    # What the server kept before arrives after that.
    until(lambda: bool(held_back))
    with page.expect_response(where):
        held_back[0].fulfill(json={"rating": "down", "reason": "of before"})
    page.route(where, lambda route: route.fulfill(status=503, json={"title": "The request cannot be kept"}))
    bad.click()
    expect(told).to_contain_text("Not kept: The request cannot be kept")
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(bad).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_label("Why?")).to_have_value("")
