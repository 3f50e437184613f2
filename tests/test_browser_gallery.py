"""The gallery: which mesh is which, where the keyboard is when one goes, and what is said when something is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trimesh

from test_browser import WAIT, mug, ready, seen

pytest.importorskip("playwright.sync_api", reason="the browser's driver is not installed: the studio is not tested")

from playwright.sync_api import Page, Route, expect

from browser import drop

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]
REFUSED = {"title": "The server failed", "detail": "the server's log tells more", "status": 500}


def entry(n: int) -> dict[str, Any]:
    key = f"{n:08x}{'0' * 56}"
    links = {"self": f"/v1/artifacts/{key}", "generation": f"/v1/generations/k{key}", "preview": f"/v1/drawn/{n}"}
    told = {
        "created": 1.7e9,
        "mesh": str(n),
        "engine": "inflate",
        "parameters": {},
        "source": str(n),
        "cost_seconds": 1.0,
    }
    return {"key": key, "media_type": "model/gltf-binary", "bytes": 1000, "links": links, **told}


def refused(route: Route) -> None:
    route.fulfill(status=500, content_type="application/problem+json", json=REFUSED)


def stocked(page: Page, count: int) -> None:
    """Have the gallery show so many meshes, whatever the store holds, of which none has a picture."""
    meshes = [entry(n) for n in range(1, count + 1)]
    page.route("**/v1/artifacts?*", lambda route: route.fulfill(json={"artifacts": meshes, "next": None}))
    page.route("**/v1/drawn/*", lambda route: route.fulfill(status=404))
    page.reload()
    expect(page.locator(".gallery li")).to_have_count(count)


def test_who_deletes_a_mesh_is_at_its_neighbour_and_knows_which_it_was(page: Page) -> None:
    stocked(page, 3)
    asked: list[str] = []

    def delete(route: Route) -> None:
        asked.append(f"{route.request.method} {route.request.url[-64:-56]}")
        route.fulfill(json={"deleted": [route.request.url[-64:]]})

    page.route(re.compile("/v1/artifacts/[0-9a-f]{64}$"), delete)
    names = page.locator(".gallery .called").all_inner_texts()
    assert names == ["mesh-00000001", "mesh-00000002", "mesh-00000003"], "made in one minute, and told apart"
    dialog = page.get_by_role("dialog")
    for name, next_to_it in (("2", "Look at mesh-00000003"), ("3", "Look at mesh-00000001")):
        page.get_by_role("button", name=f"Delete mesh-0000000{name}").focus()
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("heading")).to_contain_text(f"Delete mesh-0000000{name}, made")
        dialog.get_by_role("button", name="Delete").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=next_to_it)).to_be_focused()
        assert asked.pop() == f"DELETE 0000000{name}"
    page.get_by_role("button", name="Delete mesh-00000001").focus()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Delete").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Meshes made so far")).to_be_focused()


def test_what_others_deleted_is_not_listed_any_more_once_somebody_comes_upon_it(page: Page) -> None:
    stocked(page, 3)
    page.unroute("**/v1/artifacts?*")
    listed = [entry(n) for n in (1, 3)]
    page.route("**/v1/artifacts?*", lambda route: route.fulfill(json={"artifacts": listed, "next": None}))
    page.get_by_role("button", name="Look at mesh-00000002").click()
    expect(page.get_by_role("dialog")).to_contain_text("This mesh is not kept any more")
    expect(page.locator(".gallery .called")).to_have_text(["mesh-00000001", "mesh-00000003"])
    # Or comes back to the page after a while.
    page.keyboard.press("Escape")
    listed.pop()
    page.evaluate("Date.now = (now => () => now() + 10_000)(Date.now)")
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".gallery .called")).to_have_text(["mesh-00000001"])


def test_a_mesh_of_several_bodies_is_said_to_be_one(page: Page) -> None:
    stocked(page, 1)
    ball, hollow = trimesh.creation.icosphere(2, 1.0), trimesh.creation.icosphere(2, 0.5)
    hollow.invert()
    pin = trimesh.creation.box((0.2, 0.2, 0.2))
    pin.apply_translation((3, 0, 0))
    served = [trimesh.util.concatenate([ball, hollow]), trimesh.util.concatenate([ball, hollow, pin])]
    document = {"id": "k1", "state": "succeeded", "engine": "inflate", "recipe": None, "parameters": {}}
    document["links"] = {"self": "/v1/generations/k1", "artifact": "/v1/artifacts/several"}
    page.route("**/v1/generations/k*", lambda route: route.fulfill(json=document))
    page.route("**/several", lambda route: route.fulfill(body=served.pop(0).export(file_type="glb")))
    for told in ("yes: it can be printed", "yes, each of its 2 separate parts: printed, they are loose"):
        page.get_by_role("button", name="Look at mesh-00000001").click()
        expect(page.locator("[data-watertight=true] dd")).to_have_text(told, timeout=WAIT)
        page.keyboard.press("Escape")


def test_what_is_refused_is_said_and_can_be_asked_for_again(page: Page) -> None:
    page.route("**/v1/artifacts?*", refused)
    page.reload()
    problem = page.locator(".kept .problem")
    expect(problem).to_contain_text("The meshes cannot be listed. The server failed: the server's log tells more")
    page.unroute("**/v1/artifacts?*")
    stocked(page, 0)
    page.route("**/v1/artifacts?*", refused)
    page.reload()
    expect(problem).to_be_visible()
    page.unroute("**/v1/artifacts?*", refused)
    page.get_by_role("button", name="List them").click()
    expect(page.locator(".kept .empty")).to_be_visible()
    expect(problem).to_have_count(0)

    stocked(page, 1)
    page.route(re.compile("/v1/artifacts/[0-9a-f]{64}$"), refused)
    page.get_by_role("button", name="Delete mesh-00000001").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(problem).to_contain_text("mesh-00000001 is not deleted. The server failed")
    expect(page.locator(".gallery li")).to_have_count(1)


def test_a_picture_that_a_busy_server_does_not_draw_at_once_is_asked_for_again(page: Page) -> None:
    stl = {**entry(1), "media_type": "model/stl"}
    document = {"id": "k1", "state": "succeeded", "engine": "inflate", "recipe": None, "parameters": {}, "links": {}}
    page.route("**/v1/artifacts?*", lambda route: route.fulfill(json={"artifacts": [stl], "next": None}))
    page.route("**/v1/generations/k*", lambda route: route.fulfill(json=document))
    asked: list[Route] = []
    _, data, kind = mug((37, 96, 20))

    def drawn(route: Route) -> None:
        asked.append(route)
        if len(asked) < 3:
            route.fulfill(status=503, headers={"retry-after": "1"}, json={"title": "Busy"})
        else:
            route.fulfill(body=data, content_type=kind)

    page.route("**/v1/drawn/*", drawn)
    page.reload()
    page.get_by_role("button", name="Look at mesh-00000001").click()
    expect(page.get_by_role("dialog").locator("figure img")).to_have_js_property("naturalWidth", 256, timeout=WAIT)
    assert len(asked) >= 3


@pytest.mark.usefixtures("by_itself")
def test_how_large_a_mesh_of_the_gallery_will_be_is_what_it_was_asked_for_with(page: Page) -> None:
    page.locator("summary").first.click()
    page.get_by_label("Printed size (mm)", exact=True).fill("50")
    drop(page, [mug((61, 61, 200))])
    ready(page)
    # By its name: what is listed before it is, moves when it comes.
    (one,) = page.request.get("/v1/artifacts?limit=1").json()["artifacts"]
    page.get_by_role("button", name=f"Look at mesh-{one['key'][:8]}").click()
    printed = page.get_by_role("dialog").locator(".facts dd").first
    expect(printed).to_contain_text("mm", timeout=WAIT)
    assert max(map(int, re.findall(r"\d+", printed.inner_text().partition("mm")[0]))) == 50


@pytest.mark.usefixtures("by_itself")
def test_who_has_a_mesh_on_the_list_that_somebody_deleted_makes_it_again(page: Page) -> None:
    drop(page, [mug((62, 62, 200))])
    ready(page)
    (one,) = page.request.get("/v1/artifacts?limit=1").json()["artifacts"]
    assert page.request.delete(one["links"]["self"]).ok
    page.context.set_offline(True)
    page.get_by_role("button", name="mug.png Ready").click()
    page.get_by_role("button", name="mug.png Ready").click()
    shown = page.locator(".canvas")
    expect(shown).to_contain_text("It cannot be shown. The server does not answer")
    page.context.set_offline(False)
    expect(shown).to_contain_text("it was deleted", timeout=WAIT)
    shown.get_by_role("button", name="Make this mesh again").click()
    ready(page)
    expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
    assert page.request.head(one["links"]["self"]).ok


def _an_hour_older_than_its_stl(route: Route) -> None:
    listed = route.fetch().json()
    for one in listed["artifacts"]:
        one["created"] -= 3600 * (one["media_type"] != "model/stl")
    route.fulfill(json=listed)


@pytest.mark.usefixtures("by_itself")
def test_the_gallery_shows_what_the_store_holds_and_lets_it_go(page: Page) -> None:
    drop(page, [mug((60, 60, 200))])
    ready(page)
    card = page.locator(".gallery li").first
    card.scroll_into_view_if_needed()
    expect(card.locator(".yours")).to_have_text("mug.png")
    expect(card.locator("img")).to_have_js_property("naturalWidth", 384, timeout=WAIT)
    card.get_by_role("button", name="Look at").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".canvas[data-ready]")).to_be_visible(timeout=WAIT)
    expect(dialog.locator(".provenance")).to_contain_text("Served from")
    with page.expect_download() as coming:
        dialog.locator('[data-format="stl"]').click()
    assert trimesh.load(coming.value.path(), file_type="stl").is_watertight
    seen(dialog.locator(".said"), "STL downloaded")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    # The file for printing took less than the mesh that is shown: what is told is the mesh's.
    cost = card.locator(".small").last.text_content()
    page.reload()
    expect(card.locator(".small").last).to_have_text(str(cost))
    costs = {one["cost_seconds"] for one in page.request.get("/v1/artifacts?limit=2").json()["artifacts"]}
    assert len(costs) == 2
    # Nor is it as new as the file.
    page.route("**/v1/artifacts?*", _an_hour_older_than_its_stl)
    page.reload()
    expect(card.locator(".about")).to_contain_text(re.compile(r"6[01] min ago"))
    page.unroute("**/v1/artifacts?*")
    stl, glb = (one["key"] for one in page.request.get("/v1/artifacts?limit=2").json()["artifacts"])
    count = page.locator(".gallery li").count()
    card.get_by_role("button", name="Delete").click()
    expect(dialog).to_contain_text("for everybody")
    dialog.get_by_role("button", name="Keep as it is").click()
    expect(dialog).to_be_hidden()
    assert page.request.head(f"/v1/artifacts/{stl}").ok
    card.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator(".gallery li")).to_have_count(count - 1)
    seen(page.locator("#said"), "is deleted")
    assert [page.request.get(f"/v1/artifacts/{key}").status for key in (stl, glb)] == [404, 410], (
        "nor does the job give it"
    )
    assert not {stl, glb} & {one["key"] for one in page.request.get("/v1/artifacts?limit=200").json()["artifacts"]}
