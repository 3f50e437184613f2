"""The operations page in a real Chromium: figures follow what happens, and every action asks before it acts."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from meshkiln.telemetry.history import History
from serving import serving

pytest.importorskip("playwright.sync_api", reason="the browser's driver is not installed: the page is not tested")
pytest.importorskip("axe_playwright_python")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from browser import opened

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]
PNG = {"content-type": "image/png"}
WAIT = 60_000


@pytest.fixture
def http(tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(tmp_path, workers=2) as client:
        yield client


@pytest.fixture
def page(browser: Browser, http: httpx.Client) -> Iterator[Page]:
    context = browser.new_context(base_url=str(http.base_url))
    context.set_default_timeout(WAIT)
    with opened(context, "/operations") as found:
        yield found
    context.close()


def post(http: httpx.Client, picture: bytes) -> httpx.Response:
    return http.post("/v1/generations?wait=30", content=picture, headers=PNG)


def confirm(page: Page, action: str) -> None:
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name=action, exact=True).click()
    expect(dialog).to_be_hidden()


def test_figures_change_when_requests_come(page: Page, http: httpx.Client) -> None:
    stored = page.locator('[data-outcome="memory"] td').first
    expect(page.get_by_text("No generation was asked for.")).to_be_visible()
    post(http, b"picture")
    for _ in range(4):
        post(http, b"picture")
    post(http, b"")
    expect(stored).to_have_text("4", timeout=WAIT)
    expect(page.locator('[data-answer="stored"] dd').first).to_have_text("80 %")
    expect(page.locator('[data-answer="wrong"] dd').first).to_have_text("1")
    # Of a server that runs for seconds nobody knows what was in the last 15 minutes.
    expect(page.locator('[data-answer="slow"] dt')).to_have_text(re.compile(r"Slow now \([\d.]+ m?s\)"))
    expect(page.get_by_role("rowheader", name="bad-picture")).to_be_visible()
    wrong = page.locator('[data-answer="wrong"] dd').last
    expect(wrong).to_contain_text("all bad-picture")
    http.post("/v1/generations?depth=x", content=b"picture", headers=PNG)
    expect(wrong).to_contain_text("bad-picture and", timeout=WAIT)
    post(http, b"")
    expect(wrong).to_contain_text("most often bad-picture", timeout=WAIT)
    post(http, b"picture")
    expect(stored).to_have_text("5", timeout=WAIT)
    page.get_by_role("button", name="since the start").click()
    expect(stored).to_have_text("5", timeout=WAIT)
    expect(page.locator(".chart canvas")).to_have_count(6)
    inked = page.locator(".chart canvas").first.evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(value => value !== 0)"
    )
    assert inked


def test_a_chart_tells_what_is_saved_a_minute_and_breaks_off_where_the_server_was_away(
    browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    path, now = tmp_path / "data" / "history.sqlite", time.time()
    History(path, time.time).close()
    # Rows of two minutes: an hour of them, an hour of nothing, another hour.
    rows = [(now - 120 * n, json.dumps([120, {"saved": {"memory": 30}}, {}])) for n in (*range(60, 90), *range(30))]
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO minutes VALUES (?, ?)", rows)
    with serving(tmp_path) as http:
        page = browser.new_page(base_url=str(http.base_url))
        page.goto("/operations")
        chart = page.locator("figure.chart", has=page.get_by_role("heading", name="Saved", exact=True))
        expect(chart.locator(".hidden")).to_have_text("Latest: saved 15 s.")
        # Only the line, and what is below it, are green.
        coloured = chart.locator("canvas").evaluate(
            """c => {
                const {data, width} = c.getContext("2d").getImageData(0, 0, c.width, c.height);
                const columns = new Array(width).fill(false);
                for (let at = 0; at < data.length; at += 4) {
                    const [r, g, b] = data.subarray(at, at + 3);
                    if (g > r + 20 && g > b + 20) columns[at / 4 % width] = true;
                }
                return columns;
            }"""
        )
        page.close()
    inked, *others = [(seen, len(list(run))) for seen, run in itertools.groupby(coloured)][1:-1]
    assert [seen for seen, _ in others] == [False, True]
    assert others[0][1] == pytest.approx(inked[1], rel=0.1)


def test_only_one_look_is_under_way_however_often_the_page_comes_to_sight(page: Page) -> None:
    expect(page.get_by_text("The intake is open.")).to_be_visible()
    held: list[Route] = []
    page.route("**/v1/operations", lambda route: held.append(route))
    with page.expect_request("**/v1/operations"):
        pass
    for _ in range(5):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    # What the page does besides goes through; another look would have been on its way before it.
    page.evaluate("fetch('/healthz').then(answer => answer.text())")
    assert len(held) == 1
    held[0].continue_()


def test_a_refused_look_is_told_and_forgotten_once_one_is_answered(page: Page) -> None:
    refusal = {"type": "urn:meshkiln:problem:busy", "title": "Not now", "detail": "somebody is in the way"}
    answer = json.dumps(refusal)
    page.route(
        "**/v1/operations",
        lambda route: route.fulfill(status=503, content_type="application/problem+json", body=answer),
    )
    expect(page.get_by_role("alert")).to_have_text("Not now: somebody is in the way")
    page.unroute("**/v1/operations")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_pause_asks_first_and_shows_until_it_is_over(page: Page, http: httpx.Client) -> None:
    # Where an operator sees it at once, however small the window is.
    expect(page.get_by_text("The intake is open.")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Pause intake")).to_be_in_viewport()
    page.get_by_role("button", name="Pause intake").click()
    confirm(page, "Keep as it is")
    assert http.get("/v1/operations").json()["intake"]["paused"] is False
    page.get_by_role("button", name="Pause intake").click()
    confirm(page, "Pause")
    expect(page.get_by_text("The intake is paused.")).to_be_visible()
    assert post(http, b"new").status_code == 503
    page.get_by_role("button", name="Resume intake").click()
    confirm(page, "Resume")
    expect(page.get_by_role("button", name="Pause intake")).to_be_visible()
    assert post(http, b"new").status_code == 200


def test_a_worker_is_drained_and_resumed_and_the_last_one_is_not(page: Page, http: httpx.Client) -> None:
    row = page.locator('[data-worker="1"]')
    # As when it has a batch in hand that takes a while.
    at_work = [True]

    def still(route: Route) -> None:
        told = route.fetch().json()
        for worker in told.get("workers", [told]):
            worker["state"] = "draining" if at_work[0] and worker["state"] == "drained" else worker["state"]
        route.fulfill(json=told)

    for path in ("**/v1/operations", "**/v1/operations/workers/1"):
        page.route(path, still)
    row.get_by_role("button", name="Drain worker 1").click()
    confirm(page, "Drain")
    expect(page.locator("#said")).to_have_text("Worker 1 is draining: it finishes what it is at")
    expect(row).to_contain_text("draining")
    at_work.clear()
    at_work.append(False)
    expect(page.locator("#said")).to_have_text("Worker 1 is drained")
    expect(row).to_contain_text("drained")
    for path in ("**/v1/operations", "**/v1/operations/workers/1"):
        page.unroute(path)
    page.get_by_role("button", name="Drain worker 0").click()
    confirm(page, "Drain")
    expect(page.get_by_role("alert")).to_contain_text("The last worker cannot be drained")
    row.get_by_role("button", name="Resume worker 1").click()
    confirm(page, "Resume")
    expect(row).to_contain_text("idle", timeout=WAIT)  # its process is started
    assert [worker["state"] for worker in http.get("/v1/operations").json()["workers"]] == ["idle", "idle"]


def test_a_purge_says_what_goes_and_then_it_is_gone(page: Page, http: httpx.Client) -> None:
    key = post(http, b"picture").json()["key"]
    entries = http.get("/v1/cache").json()["entries"]
    page.get_by_label("Purge by").select_option("key")
    page.get_by_label("beginning with").fill(key[:16])
    page.get_by_role("button", name="Purge …").click()
    expect(page.get_by_role("dialog")).to_contain_text("Purge 1 artifact?")
    confirm(page, "Keep as it is")
    expect(page.locator(".said")).to_have_count(0)  # nothing was done, and nothing is said
    assert http.get("/v1/cache").json()["entries"] == entries
    held: list[Route] = []
    page.get_by_role("button", name="Purge …").click()
    expect(page.get_by_role("dialog")).to_contain_text("Purge 1 artifact?")
    page.route("**/v1/operations/purge", lambda route: held.append(route))
    with page.expect_request("**/v1/operations/purge"):
        confirm(page, "Purge")
    expect(page.get_by_text("Purging 1 artifact …")).to_be_in_viewport()
    held[0].fulfill(status=503, content_type="application/problem+json", body='{"title": "Not now"}')
    expect(page.get_by_role("alert")).to_be_in_viewport()
    expect(page.get_by_role("alert")).to_have_text("Not now")
    expect(page.get_by_text("Purging 1 artifact …")).to_have_count(0)
    assert http.get("/v1/cache").json()["entries"] == entries
    page.unroute("**/v1/operations/purge")
    page.get_by_role("button", name="Purge …").click()
    confirm(page, "Purge")
    expect(page.locator("#said")).to_have_text("One artifact is gone")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert http.get("/v1/cache").json()["entries"] == entries - 1
    page.get_by_label("Purge by").select_option("age")
    page.get_by_label("older than").select_option("now: everything")
    page.get_by_role("button", name="Purge …").click()
    expect(page.get_by_role("dialog")).to_contain_text(re.compile(r"\d [kM]?B made until now will be let go\."))
    confirm(page, "Keep as it is")
    page.get_by_label("Purge by").select_option("engine")
    page.get_by_role("button", name="Purge …").click()
    confirm(page, "Purge")
    expect(page.locator("#said")).to_contain_text("are gone")
    assert http.get("/v1/cache").json()["entries"] == 0
    page.get_by_label("Purge by").select_option("age")
    page.get_by_role("button", name="Purge …").click()
    expect(page.locator("#said")).to_contain_text("Nothing is stored")


def test_what_is_let_go_is_told_by_stage_and_why_and_savings_at_the_price_that_is_set(
    browser: Browser, tmp_path: Path
) -> None:
    with serving(tmp_path, memory_bytes=100, gpu_hour_price=7.5, currency="€") as http:
        for number in range(8):
            post(http, b"picture %d" % number)
        page = browser.new_page(base_url=str(http.base_url))
        page.goto("/operations")
        table = page.locator("section", has=page.get_by_role("heading", name="Let go, and why"))
        expect(table).to_contain_text("the bytes were needed for something dearer", timeout=WAIT)
        assert "export" in {row.get_attribute("data-evicted") for row in page.locator("[data-evicted]").all()}
        # What was let go of memory is on disk, so nothing was lost.
        found = [post(http, b"picture %d" % number).json()["stages"][-1]["source"] for number in range(8)]
        assert "disk" in found
        expect(page.locator('[data-outcome="disk"] td').first).to_have_text(str(found.count("disk")), timeout=WAIT)
        expect(page.locator('[data-answer="saved"]')).to_contain_text("at €7.5 an hour")
        expect(page.locator('[data-answer="slow"] dd').first).not_to_have_text("nothing")
        expect(page.get_by_role("group", name="Dearest artifacts per byte").locator("tbody tr").first).to_be_visible()
        expect(page.get_by_role("group", name="Batch sizes").locator("tbody tr").first).to_be_visible()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(page: Page, http: httpx.Client, scheme: str) -> None:
    for picture in (b"picture", b"picture", b""):
        post(http, picture)
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    expect(page.locator('[data-outcome="memory"]')).to_be_visible()
    page.get_by_role("button", name="Pause intake").click()
    for _ in range(2):
        found = Axe().run(page).response
        assert found["passes"]
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert serious == [], [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in serious]
        page.keyboard.press("Escape")
    page.set_viewport_size({"width": 390, "height": 844})
    # Charts follow the new width a moment later.
    expect(page.locator("html")).to_have_js_property("scrollWidth", 390, timeout=WAIT)
