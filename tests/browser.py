"""A real Chromium for tests and screenshots. Without one tests skip, and say so; CI sets MESHKILN_BROWSER=required."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    # WebGL in software.
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser. Skips the test when there is none, unless it is required."""
    if CHROMIUM is None:
        if os.environ.get("MESHKILN_BROWSER") == "required":
            pytest.fail("MESHKILN_BROWSER=required, and there is no Chromium")
        pytest.skip("no Chromium on this machine (apt-get install chromium): the pages are not tested")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def only_from(page: Page, base: str, seen: list[str]) -> None:
    """Note in `seen` every request of `page` that goes elsewhere than to `base`, and every error of its scripts."""
    page.on("request", lambda r: None if r.url.startswith((base, "blob:")) else seen.append(r.url))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))


def drop(page: Page, files: list[tuple[str, bytes, str]]) -> None:
    """Drop files (name, bytes, media type) on the page, as a hand would."""
    data = [[name, list(content), kind] for name, content, kind in files]
    page.evaluate(
        """files => {
            const carried = new DataTransfer();
            for (const [name, bytes, type] of files) carried.items.add(new File([new Uint8Array(bytes)], name, {type}));
            const event = {dataTransfer: carried, bubbles: true, cancelable: true};
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(kind, event));
        }""",
        data,
    )
