"""The studio in a real Chromium: a cut-out is repaired with a brush."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="the browser's driver is not installed: the studio is not tested")

from playwright.sync_api import Page, expect

from browser import drop, inked
from test_browser import WAIT, held, mug, ready, seen

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]


def test_a_cutout_is_repaired_with_a_brush_before_a_mesh_is_made_of_it(page: Page) -> None:
    drop(page, [mug((150, 40, 90))])
    held(page)
    page.get_by_role("button", name="Repair it").click()
    canvas = page.locator("dialog canvas")
    expect(page.get_by_role("button", name="Make a mesh of this")).to_be_enabled()
    # In a small window, or a large one at 200 per cent: nothing to do is out of sight.
    for width, height in ((640, 430), (683, 325), (320, 568), (1280, 720)):
        page.set_viewport_size({"width": width, "height": height})
        for name in ("Erase", "Keep", "Undo", "Make a mesh of this", "Leave it as it was"):
            expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
        shape = canvas.bounding_box()
        assert shape is not None
        assert shape["height"] >= 120
        assert shape["width"] == pytest.approx(shape["height"], abs=2)
    whole = inked(canvas)
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    # Its size is seen before anything is painted, and nothing is where it is not.
    small = inked(canvas)
    assert np.abs(small - whole).max() > 40
    page.get_by_role("slider").fill("160")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3 + 1)
    assert (np.abs(inked(canvas) - whole).max(axis=2) > 40).sum() > 2 * (np.abs(small - whole).max(axis=2) > 40).sum()
    page.mouse.move(1, 1)
    assert np.abs(inked(canvas) - whole).max() == 0
    page.get_by_role("slider").fill("40")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5, steps=4)
    page.mouse.up()
    page.mouse.move(1, 1)
    painted = inked(canvas)
    assert np.abs(painted - whole).max() > 40
    # Who slips with Escape finds it as it was; who leaves it on purpose, as it was before.
    repair = page.get_by_role("button", name="Repair it")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    seen(page.locator("#said"), "What you painted is kept")
    repair.click()
    expect(page.get_by_text("What you painted before is still here")).to_be_visible()
    page.mouse.move(1, 1)
    assert np.abs(inked(canvas) - painted).max() == 0
    page.reload()
    repair.click()
    expect(page.get_by_text("What you painted before is still here")).to_be_visible()
    page.mouse.move(1, 1)
    assert np.abs(inked(canvas) - painted).max() == 0
    page.get_by_role("button", name="Leave it as it was").click()
    repair.click()
    expect(page.get_by_role("button", name="Make a mesh of this")).to_be_enabled()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    canvas.focus()
    page.keyboard.press(" ")
    page.get_by_role("button", name="Undo").click()
    assert np.abs(inked(canvas) - whole).max() == 0
    # With the keyboard as well.
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press(" ")
    with page.expect_request(lambda request: request.method == "POST") as posted:
        page.get_by_role("button", name="Make a mesh of this").click()
    assert "matte=alpha" in posted.value.url
    assert posted.value.headers["content-type"] == "image/png"
    expect(page.locator("[data-item]")).to_have_count(2)
    # Nobody cancelled the first: the other took its place.
    first = page.locator("[data-item]").last
    expect(first).to_have_attribute("data-state", "cancelled")
    expect(first.locator(".state")).to_have_text("Repaired")
    ready(page)
    page.reload()
    expect(first.locator(".state")).to_have_text("Repaired")


def test_a_damaged_picture_can_be_repaired_or_replaced_but_not_made_again(page: Page) -> None:
    name, data, kind = mug((61, 99, 33))
    drop(page, [(name, data[: len(data) // 2], kind)])
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "failed", timeout=WAIT)
    expect(page.get_by_role("button", name="Choose another picture")).to_be_visible()
    expect(page.locator(".item .again")).to_have_count(0)
