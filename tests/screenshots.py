"""Pictures of every page for docs/: light, dark and at a phone's width, of a real server that made real meshes."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import pictures
from browser import chromium, drop
from meshkiln.engines.inflate import ENGINE
from meshkiln.gateway.studio import PAGES
from serving import serving

DOCS = Path(__file__).parent.parent / "docs" / "screenshots"
KINDS = {"light": (1280, 860, "light"), "dark": (1280, 860, "dark"), "phone": (390, 844, "light")}
COLOURS = {"mug-red": (180, 60, 40), "mug-blue": (40, 90, 180), "mug-green": (40, 130, 70)}


def main() -> None:
    """Take all of them; the pages and the sample pictures decide what is to be seen."""
    DOCS.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), {"inflate": ENGINE}, engine="inflate") as http,
        chromium() as browser,
    ):
        for name, (width, height, scheme) in KINDS.items():
            taken = {"empty": _studio_empty, "studio": _studio} if name == "light" else {"studio": _studio}
            for what, take in taken.items():
                _shoot(browser, http, f"{what}-{name}", width, height, scheme, take)
            for path, file in PAGES.items():
                if path != "/":
                    _shoot(browser, http, f"{file.removesuffix('.html')}-{name}", width, height, scheme, _other(path))


def _shoot(browser: Browser, http: httpx.Client, name: str, width: int, height: int, scheme: str, take) -> None:
    context = browser.new_context(
        base_url=str(http.base_url), viewport={"width": width, "height": height}, color_scheme=scheme
    )
    page = context.new_page()
    take(page)
    shown = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    shown.convert("RGB").save(DOCS / f"{name}.webp", quality=80, method=6)
    print(f"docs/screenshots/{name}.webp")
    context.close()


def _studio_empty(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#gallery")).to_be_visible()


def _studio(page: Page) -> None:
    page.goto("/")
    for name, colour in COLOURS.items():
        drop(
            page,
            [(f"{name}.png", pictures.file(pictures.painted(pictures.mug(512), colour, (240, 240, 240))), "image/png")],
        )
    expect(page.locator('[data-state="succeeded"]')).to_have_count(len(COLOURS), timeout=120_000)
    expect(page.locator(".canvas[data-ready]")).to_be_visible(timeout=60_000)
    expect(page.locator(".gallery li")).to_have_count(len(COLOURS), timeout=60_000)
    for card in page.locator(".gallery img").all():
        card.scroll_into_view_if_needed()
        card.evaluate("image => image.decode()")
    page.evaluate("scrollTo(0, 0)")


def _other(path: str):
    def take(page: Page) -> None:
        page.goto(path)
        expect(page.locator("main")).to_be_visible()
        page.wait_for_load_state("networkidle")

    return take


if __name__ == "__main__":
    main()
