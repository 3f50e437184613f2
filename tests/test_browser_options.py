"""The studio in a real Chromium: what a mesh is asked for with, at first and again."""

from __future__ import annotations

import re
import time

import pytest
import trimesh

from test_browser import WAIT, held, mug, ready

pytest.importorskip("playwright.sync_api", reason="the browser's driver is not installed: the studio is not tested")

from playwright.sync_api import Page, expect

from browser import drop

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]


def test_what_nobody_knows_in_the_storage_of_the_browser_is_passed_over(page: Page) -> None:
    drop(page, [mug((99, 140, 60))])
    held(page)
    for junk in ("no {", "null", "[]", "42", '"s"', '{"engine": 7, "values": {"depth": {}}, "variations": "x"}'):
        page.evaluate(
            """junk => {
                for (const name of ["options", "item.junk"]) localStorage.setItem(`meshkiln.${name}`, junk);
                const real = Object.keys(localStorage).find(name => /item.[0-9a-f]{24}/.test(name));
                const item = JSON.parse(localStorage.getItem(real));
                const broken = JSON.stringify({...item, id: "broken", state: "succeeded", document: {}});
                localStorage.setItem("meshkiln.item.broken", broken);
            }""",
            junk,
        )
        page.reload()
        expect(page.locator("summary")).to_have_text("Options inflate")
        expect(page.locator("[data-item]")).to_have_count(1)
    page.get_by_role("button", name="Keep it").click()
    ready(page)


@pytest.mark.usefixtures("by_itself")
def test_options_are_asked_for_what_they_say_and_kept(page: Page) -> None:
    expect(page.get_by_label("Depth", exact=True)).to_be_hidden()
    page.locator("summary").click()
    depth, faces = (page.get_by_label(name, exact=True) for name in ("Depth", "Faces"))
    for field, value, allowed in ((depth, "99", "a number from 0.02 to 3"), (faces, "1.5", "from 0 to 2,000,000")):
        field.fill(value)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(f"has to be .*{allowed}"))
    # The server refuses it as well. Trying again would be no use: what helps is another value.
    drop(page, [mug((121, 60, 140))])
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "failed", timeout=WAIT)
    said = "One of the options cannot be used: Depth has to be a number from 0.02 to 3, and is 99"
    expect(page.locator(".item .problem")).to_have_text(re.compile(re.escape(said)))
    expect(page.get_by_role("button", name=re.compile("^Try "))).to_have_count(0)
    expect(page.get_by_role("button", name="Make it again")).to_be_disabled()
    page.locator(".fold > summary").click()
    page.get_by_role("button", name="Change the options of mug.png").click()
    expect(page.locator("[aria-invalid=true]:focus")).to_be_visible()
    depth.fill("0.5")
    faces.fill("3001")
    with page.expect_request(lambda request: request.method == "POST") as posted:
        page.get_by_role("button", name="Make mug.png with the options as they are now").click()
    assert {"depth=0.5", "faces=3001"} <= set(posted.value.url.partition("?")[2].split("&"))
    ready(page)
    depth.fill("0.4")
    faces.fill("3000")
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)
    expect(depth).to_have_accessible_description(re.compile("thickness"))
    page.get_by_label("Format", exact=True).select_option("stl")
    with page.expect_request(lambda request: request.method == "POST") as posted:
        drop(page, [mug((120, 60, 140))])
    expect(page.locator("[data-item]")).to_have_count(2)
    assert {"engine=inflate", "depth=0.4", "faces=3000"} <= set(posted.value.url.partition("?")[2].split("&"))
    ready(page)
    expect(page.locator(".downloads button").first).to_have_text("Download STL")
    with page.expect_download() as coming:
        page.locator(".downloads button").first.click()
    mesh = trimesh.load(coming.value.path(), file_type="stl")
    assert len(mesh.faces) <= 3000
    page.reload()
    expect(page.locator("summary")).to_contain_text("2 changed")
    page.locator("summary").click()
    page.get_by_role("button", name="Back to the defaults").click()
    expect(page.locator("summary")).not_to_contain_text("changed")


@pytest.mark.usefixtures("by_itself")
def test_a_finished_picture_is_made_again_otherwise(page: Page) -> None:
    drop(page, [mug((33, 144, 99))])
    ready(page)
    again = page.get_by_role("button", name="Make it again")
    # An engine without a seed would make the same: there is nothing else to be had.
    expect(again).to_be_disabled()
    page.locator("summary").click()
    page.get_by_label("Faces", exact=True).fill("3000")
    with page.expect_request(lambda request: request.method == "POST") as posted:
        again.click()
    assert "faces=3000" in posted.value.url
    expect(page.locator("[data-item]")).to_have_count(2)
    expect(page.locator(".item").first.locator(".title")).to_be_focused()
    ready(page)
    # Two of one name are told apart by what they were asked for with, also where there is no room for the name.
    page.set_viewport_size({"width": 390, "height": 844})
    twin = page.locator(".item .twin").first
    assert twin.evaluate(
        "node => node.getBoundingClientRect().right <= node.parentElement.getBoundingClientRect().right"
    )
    assert twin.evaluate("node => node.scrollWidth <= node.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 720})
    assert page.locator(".item .name").all_inner_texts() == ["mug.png\ninflate, faces 3000", "mug.png\ninflate"]
    page.get_by_label("Engine", exact=True).select_option("vecset")
    page.get_by_label("Recipe", exact=True).select_option("fast")
    for seed in (None, "seed=1", "seed=2"):
        with page.expect_request(lambda request: request.method == "POST") as posted:
            again.click()
        asked = posted.value.url.partition("?")[2].split("&")
        assert "engine=vecset" in asked
        assert [part for part in asked if part.startswith("seed=")] == ([seed] if seed else [])
        ready(page)
    # It is made of the picture that was kept, and survives as any other.
    page.reload()
    expect(page.locator('[data-state="succeeded"]')).to_have_count(5)


@pytest.mark.usefixtures("by_itself")
def test_formats_that_the_server_has_no_picture_for_any_more_are_made_of_the_one_that_is_kept_here(page: Page) -> None:
    drop(page, [mug((34, 144, 99))])
    ready(page)
    # As the server tells it once its retention time is over.
    page.evaluate(
        """() => {
            const name = Object.keys(localStorage).find(name => name.startsWith("meshkiln.item."));
            const item = JSON.parse(localStorage.getItem(name));
            const {glb} = item.document.links.formats;
            item.document.links.formats = {glb};
            localStorage.setItem(name, JSON.stringify(item));
        }"""
    )
    page.reload()
    expect(page.locator(".downloads")).to_contain_text("for OBJ, PLY, STL, 3MF yours is sent again")
    stl = page.locator('[data-format="stl"]')
    stl.focus()
    with page.expect_request(lambda request: request.method == "POST") as posted, page.expect_download() as coming:
        page.keyboard.press("Enter")
    assert "format=stl" in posted.value.url
    assert trimesh.load(coming.value.path(), file_type="stl").is_watertight
    expect(stl).to_be_focused()
    expect(stl).to_have_attribute("aria-disabled", "false")


def test_what_waits_at_its_cutout_is_made_as_the_options_are_when_it_is_kept(page: Page) -> None:
    drop(page, [mug((20, 60, 160))])
    held(page)
    page.locator("summary").click()
    page.get_by_label("Engine", exact=True).select_option("vecset")
    page.get_by_label("Resolution", exact=True).fill("64")
    page.get_by_label("Seed", exact=True).fill("3")
    expect(page.locator('[data-stage="sample"]')).to_be_visible()
    with page.expect_request(lambda request: request.method == "POST") as posted:
        page.get_by_role("button", name="Keep it").click()
    assert {"engine=vecset", "octree_resolution=64", "seed=3"} <= set(posted.value.url.partition("?")[2].split("&"))
    ready(page)
    expect(page.locator(".item .name")).to_have_text("mug.png (seed 3)")
    # What was agreed to is not touched any more.
    page.get_by_label("Engine", exact=True).select_option("inflate")
    expect(page.locator('[data-stage="sample"]')).to_have_class("chip computed")


def test_the_learned_engine_makes_variations_and_its_latents_are_used_again(page: Page) -> None:
    page.locator("summary").click()
    page.get_by_label("Engine", exact=True).select_option("vecset")
    page.get_by_label("Recipe", exact=True).select_option("fast")
    page.get_by_label("Resolution", exact=True).fill("64")
    # What only somebody who knows the model would change is behind a fold of its own.
    expect(page.get_by_label("Solver", exact=True)).to_be_hidden()
    page.get_by_text("more parameters of vecset").click()
    expect(page.get_by_label("Solver", exact=True)).to_be_visible()
    page.get_by_label("Variations", exact=True).fill("2")
    page.evaluate(
        """() => {
            window.told = new Set();
            window.spoken = new Set();
            const note = () => {
                document.querySelectorAll('.chip.active').forEach(chip => told.add(chip.innerText));
                document.querySelectorAll('.progress [role=status]').forEach(said => spoken.add(said.textContent));
            };
            new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
        }"""
    )
    drop(page, [mug((20, 160, 120))])
    expect(page.locator('[data-state="held"]')).to_have_count(2, timeout=WAIT)
    # One picture, one cut-out, one answer.
    expect(page.get_by_role("button", name="Keep all")).to_have_count(0)
    page.get_by_role("button", name="Keep it").click()
    expect(page.locator('[data-state="succeeded"]')).to_have_count(2, timeout=2 * WAIT)
    expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
    assert re.search(r"Shape \d+ of \d+", " ".join(page.evaluate("[...told]")))
    spoken = page.evaluate("[...spoken]")
    # With the name, for several are at work; and stages are spoken, and not each of their steps.
    assert {f"mug.png (seed {seed}): Imagining the shape" for seed in (0, 1)} & set(spoken)
    assert all(re.fullmatch(r"mug\.png \(seed \d\): \D*", said) for said in spoken)
    names = page.locator(".item .name").all_inner_texts()
    assert len(set(names)) == 2
    assert all("seed" in name for name in names)
    expect(page.locator('[data-stage="sample"]').first).to_have_class("chip computed")
    keys = [one["key"] for one in page.request.get("/v1/artifacts?limit=2").json()["artifacts"]]
    meshes = [page.request.get(f"/v1/artifacts/{key}").body() for key in keys]
    assert meshes[0] != meshes[1]

    # The same at another resolution, some days later.
    page.get_by_label("Variations", exact=True).fill("1")
    page.get_by_label("Seed", exact=True).fill("0")
    page.get_by_label("Resolution", exact=True).fill("96")
    page.get_by_label("Cut-out", exact=True).select_option("goes on")
    drop(page, [mug((20, 160, 120))])
    expect(page.locator("[data-item]")).to_have_count(3)
    ready(page)
    told = page.locator(".provenance")
    expect(told).to_contain_text("Reused the latents of today from memory, decoded again at 96")
    expect(told).to_contain_text("saved")
    today = page.evaluate("new Date().toLocaleDateString('en', {weekday: 'long'})")
    page.clock.set_fixed_time(time.time() + 2 * 86400)
    page.reload()
    expect(told).to_contain_text(f"Reused the latents of {today} from memory, decoded again at 96")
