"""The studio with others between: a proxy with nobody behind it, busy workers, a recipe that says otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshkiln.engines import inflate
from meshkiln.engines.vecset import ENGINE
from serving import serving
from test_browser import WAIT, mug, ready

pytest.importorskip("axe_playwright_python")

from playwright.sync_api import Browser, Page, Route, expect

from browser import drop

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]


def nobody(route: Route) -> None:
    route.fulfill(status=502, content_type="text/html", body="<h1>Bad Gateway</h1>")


@pytest.mark.usefixtures("by_itself")
def test_what_is_given_while_a_proxy_has_nobody_behind_it_is_made_when_it_has(page: Page) -> None:
    page.route("**/*", nobody)
    drop(page, [mug((31, 90, 20))])
    expect(page.locator(".away")).to_be_visible()
    expect(page.locator('[data-state="sending"]')).to_have_count(1)
    page.unroute("**/*")
    ready(page)


@pytest.mark.usefixtures("by_itself")
def test_a_picture_is_sent_again_to_who_fails_without_a_word_but_not_for_ever(page: Page) -> None:
    page.clock.install()
    asked: list[str] = []

    def fail(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=500, content_type="text/html", body="<h1>Internal Server Error</h1>")

    page.route("**/v1/generations?*", fail)
    drop(page, [mug((31, 91, 20))])
    problem, asking = page.locator(".item .problem"), page.locator(".item .asking")
    for time in range(1, 6):
        wait = 2 ** (time - 1)
        # A second may have passed before somebody looks.
        expect(asking).to_contain_text(re.compile(f"Asking again in ({wait}|{max(1, wait - 1)}) s"))
        assert len(asked) == time
        page.clock.fast_forward(2 ** (time - 1) * 1000)
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "failed")
    expect(problem).to_contain_text("it did so 6 times, without a word of its own")
    expect(page.locator(".away")).to_have_count(0)
    page.get_by_role("button", name="Try mug.png again").click()
    expect(asking).to_contain_text("Asking again in 1 s")
    page.unroute("**/v1/generations?*")
    page.clock.fast_forward(1000)
    ready(page)


@pytest.mark.usefixtures("by_itself")
def test_what_the_server_itself_fails_at_is_said_at_once(page: Page) -> None:
    failed = {"title": "The server failed", "detail": "the server's log tells more"}
    page.route(
        "**/v1/generations?*",
        lambda route: route.fulfill(status=500, headers={"content-type": "application/problem+json"}, json=failed),
    )
    drop(page, [mug((31, 92, 20))])
    expect(page.locator("[data-item]")).to_have_attribute("data-state", "failed")
    expect(page.locator(".item .problem")).to_have_text("The server failed: the server's log tells more")


def test_a_server_that_does_not_tell_its_engines_is_asked_again(page: Page) -> None:
    page.clock.install()
    failed = {"title": "The server failed", "detail": "the server's log tells more"}
    page.route("**/v1/engines", lambda route: route.fulfill(status=500, json=failed), times=1)
    page.reload()
    expect(page.locator("main > .problem")).to_contain_text("The options cannot be shown")
    page.clock.fast_forward(5000)
    expect(page.locator(".fold")).to_be_visible()
    expect(page.locator("main > .problem")).to_have_count(0)


@pytest.mark.usefixtures("by_itself")
def test_a_cutout_that_a_busy_server_draws_later_is_shown_later(page: Page) -> None:
    asked: list[str] = []

    def busy(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) < 4:
            route.fulfill(status=503, headers={"retry-after": "1"}, json={"title": "Busy"})
        else:
            route.fallback()

    page.route("**/v1/artifacts/*?format=png", busy)
    drop(page, [mug((38, 97, 20))])
    ready(page)
    expect(page.locator("img.checker")).to_be_visible(timeout=WAIT)
    assert len(asked) >= 4


@pytest.mark.usefixtures("by_itself")
def test_a_stream_that_is_refused_is_not_asked_for_again_at_once(page: Page) -> None:
    asked: list[str] = []

    def refused(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=500, content_type="application/problem+json", body="{}")

    page.route("**/events", refused)
    drop(page, [mug((32, 91, 20))])
    ready(page)
    assert 1 <= len(asked) <= 3, "it is looked at now and then instead"


@pytest.mark.usefixtures("by_itself")
def test_an_option_that_is_the_engines_default_is_asked_for_where_the_recipe_says_otherwise(page: Page) -> None:
    page.locator("summary").first.click()
    page.get_by_label("Engine", exact=True).select_option("vecset")
    page.get_by_label("Recipe", exact=True).select_option("reference")
    page.locator(".further > summary").click()
    default = next(parameter.default for parameter in ENGINE.parameters if parameter.name == "steps")
    expect(page.get_by_label("Steps", exact=True)).to_have_attribute("placeholder", "50")
    page.get_by_label("Steps", exact=True).fill(str(default))
    expect(page.locator(".fold > summary")).to_contain_text("1 changed")
    page.route("**/v1/generations?*", lambda route: route.abort())
    with page.expect_request(lambda request: request.method == "POST", timeout=WAIT) as posted:
        drop(page, [mug((33, 92, 20))])
    assert {"recipe=reference", f"steps={default}"} <= set(posted.value.url.partition("?")[2].split("&"))


def test_where_no_recipe_is_chosen_the_options_show_what_the_servers_own_sets(browser: Browser, tmp_path: Path) -> None:
    kinds = {"inflate": inflate.ENGINE, "vecset": ENGINE}
    with serving(tmp_path, kinds, ready=False, engine="inflate", recipe="reference") as http:
        page = browser.new_page(base_url=str(http.base_url))
        page.goto("/")
        page.locator("summary").first.click()
        page.get_by_label("Engine", exact=True).select_option("vecset")
        chosen = page.get_by_label("Recipe", exact=True).locator("option:checked")
        expect(chosen).to_have_text("the server's own: reference")
        page.locator(".further > summary").click()
        steps = page.get_by_label("Steps", exact=True)
        expect(steps).to_have_attribute("placeholder", str(ENGINE.recipes["reference"]["steps"]))
        steps.fill("7")
        page.get_by_role("button", name="Back to the defaults").click()
        expect(page.locator(".fold > summary")).to_have_text("Options inflate")
        expect(page.get_by_label("Engine", exact=True)).to_have_value("inflate")
        page.close()


@pytest.mark.usefixtures("by_itself")
def test_meshes_whose_pictures_are_not_drawn_yet_keep_nobody_waiting(page: Page) -> None:
    drop(page, [mug((34, 93, 20))])
    ready(page)
    (one,) = page.request.get("/v1/artifacts?limit=1").json()["artifacts"]
    many = [
        one | {"key": f"{n:064x}", "mesh": f"{n}", "links": one["links"] | {"preview": f"/v1/drawn/{n}"}}
        for n in range(12)
    ]
    page.route("**/v1/artifacts?*", lambda route: route.fulfill(json={"artifacts": many, "next": None}))
    held: list[Route] = []
    page.route("**/v1/drawn/*", lambda route: held.append(route))
    page.reload()
    expect(page.locator(".gallery li")).to_have_count(12)
    page.locator(".gallery").scroll_into_view_if_needed()
    drop(page, [mug((35, 94, 20))])
    expect(page.locator("[data-item]")).to_have_count(2)
    ready(page)
    assert len(held) == 2, "more would take the connections that everything else needs"
    _, data, kind = mug((36, 94, 20))
    page.route("**/v1/drawn/*", lambda route: route.fulfill(body=data, content_type=kind))
    for route in held:
        route.fulfill(status=503, headers={"retry-after": "1"}, json={"title": "Busy"})
    expect(page.locator(".gallery img").first).to_be_visible(timeout=WAIT)


@pytest.mark.usefixtures("by_itself")
def test_a_mesh_that_is_stored_as_stl_alone_shows_its_picture_and_is_downloaded(page: Page) -> None:
    answer = page.request.post(
        "/v1/generations?format=stl&wait=60&depth=0.31",
        headers={"content-type": "image/png"},
        data=mug((36, 95, 20))[1],
    )
    assert answer.json()["state"] == "succeeded"
    page.reload()
    page.locator(".gallery li").first.get_by_role("button", name="Look at").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("figure img")).to_have_js_property("naturalWidth", 384, timeout=WAIT)
    expect(dialog).to_contain_text("No GLB of it is stored")
    with page.expect_download() as coming:
        dialog.locator('[data-format="stl"]').click()
    assert coming.value.path().stat().st_size > 1000
