"""Pictures of every page for docs/: light, dark and at a phone's width, of a real server that made real meshes."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import pictures
from browser import chromium, drop
from meshkiln.engines.inflate import ENGINE
from serving import serving

DOCS = Path(__file__).parent.parent / "docs" / "screenshots"
KINDS = {"light": (1280, 860, "light"), "dark": (1280, 860, "dark"), "phone": (390, 844, "light")}
COLOURS = {"mug-red": (180, 60, 40), "mug-blue": (40, 90, 180), "mug-green": (40, 130, 70)}
TRAFFIC = 100.0
"""Seconds of requests before the operations page is looked at; they go on meanwhile."""
PNG = {"content-type": "image/png"}

Take = Callable[[Page], None]


def main() -> None:
    """Take all of them; the sample pictures and the requests decide what is to be seen."""
    DOCS.mkdir(exist_ok=True)
    with chromium() as browser:
        with _served() as http:
            _shoot(browser, http, "empty", "light", _empty)
            _shoot(browser, http, "cutout", "light", _cutout)
            for kind in KINDS:
                _shoot(browser, http, "studio", kind, _studio)
                _shoot(browser, http, "api", kind, _api)
        # Memory for two meshes, so that some are found on disk and something has to go.
        with _served(memory_bytes=2_500_000, workers=2) as http:
            over = threading.Event()
            traffic = threading.Thread(target=_traffic, args=(http, over))
            traffic.start()
            time.sleep(TRAFFIC)
            for kind in KINDS:
                _shoot(browser, http, "operations", kind, _operations)
            over.set()
            traffic.join()


@contextlib.contextmanager
def _served(**settings: int) -> Iterator[httpx.Client]:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), {"inflate": ENGINE}, engine="inflate", **settings) as http,
    ):
        yield http


def _picture(name: str, colour: tuple[int, int, int]) -> tuple[str, bytes, str]:
    return f"{name}.png", pictures.file(pictures.painted(pictures.mug(512), colour, (240, 240, 240))), "image/png"


def _shoot(browser: Browser, http: httpx.Client, what: str, kind: str, take: Take) -> None:
    width, height, scheme = KINDS[kind]
    context = browser.new_context(
        base_url=str(http.base_url),
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    take(page)
    shown = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    shown.convert("RGB").save(DOCS / f"{what}-{kind}.webp", quality=80, method=6)
    print(f"docs/screenshots/{what}-{kind}.webp")
    context.close()


def _empty(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#gallery")).to_be_visible()


def _cutout(page: Page) -> None:
    page.goto("/")
    drop(page, [_picture("mug-red", COLOURS["mug-red"])])
    expect(page.locator('[data-state="held"]')).to_have_count(1, timeout=120_000)
    expect(page.locator("img.checker")).to_have_js_property("complete", True)


def _studio(page: Page) -> None:
    page.goto("/")
    drop(page, [_picture(name, colour) for name, colour in COLOURS.items()])
    expect(page.locator('[data-state="held"]')).to_have_count(len(COLOURS), timeout=120_000)
    page.get_by_role("button", name="Keep all").click()
    expect(page.locator('[data-state="succeeded"]')).to_have_count(len(COLOURS), timeout=120_000)
    expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=60_000)
    expect(page.locator(".gallery li")).to_have_count(len(COLOURS), timeout=60_000)
    for card in page.locator(".gallery li").all():
        card.scroll_into_view_if_needed()
        card.locator("img").evaluate("image => image.decode()")
    page.mouse.move(0, 0)  # or what is under it looks pointed at
    page.evaluate("scrollTo(0, 0)")


def _api(page: Page) -> None:
    page.goto("/docs")
    page.locator("summary").first.click()


def _operations(page: Page) -> None:
    page.goto("/operations")
    page.get_by_role("button", name="since the start").click()
    expect(page.locator(".chart canvas")).to_have_count(6, timeout=60_000)
    expect(page.locator("[data-evicted]").first).to_be_visible(timeout=60_000)
    page.wait_for_timeout(4000)  # until the charts have followed once


def _traffic(http: httpx.Client, over: threading.Event) -> None:
    """What a busy hour has, in less time: new pictures, asked for again, together, with nonsense among them."""
    made = [_picture(str(n), (40 + 60 * (n % 4), 60 + 25 * (n % 6), 220 - 30 * (n % 7)))[1] for n in range(24)]
    turn = 0
    with ThreadPoolExecutor(3) as callers:
        while not over.is_set():
            new = made[turn % len(made)]
            asked = [
                callers.submit(_post, http, new, f"depth={1 + turn % 2000 / 1000:g}")
                for _ in range(1 + (turn % 3 == 0))
            ]
            asked += [callers.submit(_post, http, made[n], "depth=1") for n in range(turn % 4)]
            for answer in asked:
                answer.result()
            if turn % 5 == 2:
                _post(http, b"no picture", "")
            if turn % 6 == 4:
                accepted = http.post("/v1/generations?depth=0.4&faces=5000", content=new, headers=PNG).json()
                http.delete(accepted["links"]["self"])
            # The same again, as it is where people share links.
            for _ in range(5 + turn % 7):
                _post(http, new, f"depth={1 + turn % 2000 / 1000:g}")
            turn += 1


def _post(http: httpx.Client, picture: bytes, query: str) -> None:
    http.post(f"/v1/generations?wait=30&{query}", content=picture, headers=PNG)


if __name__ == "__main__":
    main()
