"""Ways into the studio and through it: paste, camera, keyboard alone, several at once, a server that goes."""

from __future__ import annotations

import io
import re
from pathlib import Path

import httpx
import pytest
import trimesh

from gate import Gate
from meshkiln.gateway.service import AT_ONCE
from serving import serving, until
from test_browser import WAIT, held, mug, ready

pytest.importorskip("axe_playwright_python")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browser import by_itself, drop, only_from

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]


# In.


def test_a_picture_is_pasted(page: Page, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    _, data, _ = mug((33, 44, 155))
    page.evaluate(
        """async bytes => {
            const picture = new Blob([new Uint8Array(bytes)], {type: "image/png"});
            await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
        }""",
        list(data),
    )
    page.keyboard.press("Control+V")
    held(page)
    expect(page.locator("img.checker")).to_be_visible()


def test_a_picture_is_taken_with_a_camera(page: Page) -> None:
    page.evaluate(
        """() => {
            const asked = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            const none = () => Promise.reject(new DOMException("", "NotFoundError"));
            const answers = [none, asked];
            navigator.mediaDevices.getUserMedia = wanted => answers.shift()(wanted);
        }"""
    )
    page.get_by_role("button", name="Take a photo").click()
    # Without a camera there is no frame for its picture, and another way is at hand.
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("There is no camera here")
    expect(page.locator("video")).to_have_count(0)
    with page.expect_file_chooser():
        page.get_by_role("dialog").get_by_role("button", name="Choose pictures").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Take a photo").click()
    expect(page.get_by_role("button", name="Take it")).to_be_enabled(timeout=WAIT)
    expect(page.locator("video")).not_to_have_js_property("videoWidth", 0)
    with page.expect_request(lambda request: request.method == "POST") as posted:
        page.get_by_role("button", name="Take it").click()
    assert posted.value.headers["content-type"] == "image/jpeg"
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".item .name")).to_have_text("photo.jpg")
    held(page)


def test_where_a_page_may_use_no_camera_the_phone_is_asked_for_a_photo(context: BrowserContext) -> None:
    # As in a page that came over plain HTTP from another machine.
    context.add_init_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page = context.new_page()
    page.goto("/")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").click()
    assert chooser.value.element.get_attribute("capture") == "environment"
    name, data, kind = mug((99, 44, 15))
    chooser.value.set_files({"name": name, "mimeType": kind, "buffer": data})
    held(page)


def test_who_has_only_fingers_is_not_told_to_drop_anything(browser: Browser, studio: httpx.Client) -> None:
    context = browser.new_context(base_url=str(studio.base_url), is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto("/")
    added = page.get_by_role("region", name="Add pictures")
    expect(added).to_contain_text("Choose a picture")
    expect(added).not_to_contain_text(re.compile("drop|paste", re.IGNORECASE))
    context.close()


def test_several_pictures_are_kept_at_once_and_each_becomes_its_mesh(page: Page) -> None:
    files = [mug((10 + 60 * n, 200 - 50 * n, 90), f"mug-{n}") for n in range(3)]
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose pictures").click()
    assert chooser.value.is_multiple()
    chooser.value.set_files([{"name": name, "mimeType": kind, "buffer": data} for name, data, kind in files])
    expect(page.locator('[data-state="held"]')).to_have_count(3, timeout=WAIT)
    page.get_by_role("button", name="Keep all 3 cut-outs").click()
    expect(page.locator('[data-state="succeeded"]')).to_have_count(3, timeout=WAIT)
    assert sorted(page.locator(".item .name").all_inner_texts()) == ["mug-0.png", "mug-1.png", "mug-2.png"]
    drop(page, [mug((10, 160, 190))])
    held(page)
    clear = page.get_by_role("button", name="Take 3 finished off the list")
    # On a phone as well, the heading is one line, and neither it nor the button sticks out of the list.
    page.set_viewport_size({"width": 400, "height": 800})
    clear.hover()
    heading, button, below = (node.bounding_box() for node in (page.locator("#yours"), clear, page.locator(".items")))
    assert heading is not None
    assert button is not None
    assert below is not None
    assert heading["height"] < 40
    assert below["x"] <= button["x"]
    assert button["x"] + button["width"] <= below["x"] + below["width"] + 0.5
    clear.click()
    expect(page.locator("[data-item]")).to_have_count(1)
    page.reload()
    expect(page.locator("[data-item]")).to_have_count(1)


def test_who_waits_sees_his_place_in_the_queue_and_a_place_that_is_given_up_is_taken(
    browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    with serving(tmp_path, {"toy": gate.engine()}, batching=False) as http:
        page = browser.new_page(base_url=str(http.base_url))
        page.goto("/")
        most = 2 * AT_ONCE  # half of them wait
        drop(page, [(f"{n}.png", b"picture %d" % n, "image/png") for n in range(most)])
        until(lambda: gate.waiting() == 1)
        expect(page.locator(".now", has_text="Number 1 in the queue")).to_have_count(1, timeout=WAIT)
        expect(page.locator(".now", has_text="Number 2 in the queue")).to_have_count(1, timeout=WAIT)
        first = page.locator(".item", has=page.locator(".now", has_text="Number 1 in the queue"))
        name = first.locator(".name").inner_text()
        page.get_by_role("button", name=f"Cancel {name}").click()
        expect(page.locator('[data-state="cancelled"]')).to_have_count(1)
        expect(page.locator(".now", has_text="Number 1 in the queue")).to_have_count(1, timeout=WAIT)
        gate.open()
        expect(page.locator('[data-state="succeeded"]')).to_have_count(most - 1, timeout=WAIT)
        page.close()


# Anybody.


@pytest.mark.usefixtures("by_itself")
def test_a_browser_without_webgl_says_so_and_downloads(context: BrowserContext) -> None:
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page = context.new_page()
    page.goto("/")
    drop(page, [mug((160, 44, 15))])
    ready(page)
    # Said, which it would not be as a part of something that is told to be a picture.
    expect(page.locator(".model").get_by_role("status").first).to_contain_text("no WebGL")
    expect(page.locator(".canvas")).not_to_have_attribute("role", "img")
    with page.expect_download() as coming:
        page.get_by_role("button", name="Download GLB").click()
    assert trimesh.load(coming.value.path(), file_type="glb").bounds is not None


def test_on_a_phone_the_names_of_pictures_that_wait_can_be_read(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    drop(page, [mug((20, 60, n), name) for n, name in enumerate(("first mug", "second mug"))])
    expect(page.locator('[data-state="held"]')).to_have_count(2, timeout=WAIT)
    for name in page.locator(".item .name").all():
        assert name.evaluate("name => name.clientWidth >= name.scrollWidth"), "not cut short"


def test_with_the_keyboard_alone_from_a_picture_to_a_file(page: Page, tmp_path: Path) -> None:
    def to(name: str, most: int = 60) -> None:
        """Walk with Tab until the button of that name has the focus."""
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel").startswith(name):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", "seen"
                return
        raise AssertionError(f"no way to {name}")

    # Listened for from here on: a key is quicker than the browser is told to hand its choosers over.
    page.on("filechooser", lambda chooser: None)
    to("Choose pictures")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    name, data, kind = mug((140, 140, 60))
    chooser.value.set_files({"name": name, "mimeType": kind, "buffer": data})
    held(page)
    to("Keep it")
    page.keyboard.press("Enter")
    ready(page)
    page.locator(".title").focus()
    to("Download GLB", 4)
    with page.expect_download() as coming:
        page.keyboard.press("Enter")
    coming.value.save_as(tmp_path / "mug.glb")
    assert trimesh.load(tmp_path / "mug.glb").bounds is not None
    # What happened is also said, for who does not see it.
    expect(page.locator("#said")).to_contain_text("GLB downloaded")


def test_nothing_serious_stands_in_the_way_of_anybody(browser: Browser, studio: httpx.Client) -> None:
    # The page's policy lets no script in that is not its own; the checker's has to be.
    context = browser.new_context(base_url=str(studio.base_url), bypass_csp=True)
    page = context.new_page()
    page.goto("/")
    expect(page.locator("#gallery")).to_be_visible()
    _clear(page)
    page.locator("summary").click()
    drop(page, [mug((180, 60, 41))])
    held(page)
    _clear(page)
    page.get_by_role("button", name="Repair it").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    _clear(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keep it").click()
    ready(page)
    expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
    _clear(page)
    page.goto("/docs")
    _clear(page)
    context.close()


def _clear(page: Page) -> None:
    """No serious finding, wide and narrow, light and dark, and nothing to be scrolled to the side."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
            found = Axe().run(page).response
            assert found["passes"]
            serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
            assert serious == [], (width, scheme, [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in serious])
        assert page.evaluate("document.documentElement.scrollWidth") <= width


# The server.


def test_the_page_can_be_used_within_a_second(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    page.reload()
    expect(page.get_by_role("button", name="Choose pictures")).to_be_visible()
    # From the beginning of the navigation until the script has drawn what can be clicked.
    painted = "performance.getEntriesByType('paint').filter(one => one.name === 'first-contentful-paint')"
    # The browser tells of a frame once it was shown, which is after what is in it can be found.
    until(lambda: page.evaluate(f"{painted}.length"))
    assert page.evaluate(f"{painted}[0].startTime") < 1000
    assert page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive") < 1000


def test_a_server_that_is_stopped_and_started_again_goes_on_where_it_was(browser: Browser, tmp_path: Path) -> None:
    from meshkiln.engines.inflate import ENGINE

    context = None
    try:
        with serving(tmp_path, {"inflate": ENGINE}, engine="inflate", shutdown_seconds=0.0) as http:
            port = http.base_url.port
            context = browser.new_context(base_url=str(http.base_url))
            by_itself(context)
            page = context.new_page()
            elsewhere: list[str] = []
            only_from(page, elsewhere)
            page.goto("/")
            with page.expect_response(lambda answer: answer.request.method == "POST") as posted:
                drop(page, [mug((77, 120, 33), "one"), mug((33, 120, 177), "two")])
            assert posted.value.status == 202
        expect(page.locator(".away")).to_be_visible(timeout=WAIT)
        assert page.locator('[data-state="succeeded"]').count() < 2, "stopped in the middle"
        # Given while nobody is there: kept for when somebody is.
        drop(page, [mug((133, 20, 77), "three")])
        with serving(tmp_path, {"inflate": ENGINE}, engine="inflate", port=port):
            expect(page.locator(".away")).to_have_count(0, timeout=WAIT)
            expect(page.locator('[data-state="succeeded"]')).to_have_count(3, timeout=2 * WAIT)
            expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
            link = page.request.get("/v1/artifacts?limit=1").json()["artifacts"][0]["links"]["self"]
            assert trimesh.load(io.BytesIO(page.request.get(link).body()), file_type="glb").bounds is not None
            assert elsewhere == []
            context.close()
            context = None
    finally:
        if context is not None:
            context.close()
