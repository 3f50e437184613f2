"""A real Chromium for tests and screenshots. Without one tests skip, and say so; CI sets MESHKILN_BROWSER=required.

Wait with `expect` or `serving.until`, never with `wait_for_function`: that evaluates its text in the page again for
each look, which the page's policy refuses from the second look on, so it fails only when it has to wait.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    # WebGL in software, and a camera that sees a test picture.
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
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


def only_from(page: Page, seen: list[str]) -> None:
    """Note in `seen` what `page` may not do: ask another server than its own, break its policy, fail in a script."""

    def asked(url: str) -> None:
        if not url.startswith(("blob:", "data:")) and urlsplit(url).hostname != "127.0.0.1":
            seen.append(url)

    page.on("request", lambda request: asked(request.url))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on("console", lambda said: seen.append(said.text) if "Content Security Policy" in said.text else None)


@contextlib.contextmanager
def opened(context: BrowserContext, path: str) -> Iterator[Page]:
    """A new page of ours, which asks nobody but its server and whose scripts fail nowhere while it is open."""
    page = context.new_page()
    elsewhere: list[str] = []
    only_from(page, elsewhere)
    page.goto(path)
    yield page
    assert elsewhere == []


def by_itself(context: BrowserContext) -> None:
    """Have the studio go on without asking about cut-outs, as somebody who has set that before they open it."""
    # Not in the empty page that every page is before it is opened: that has no storage.
    context.add_init_script(
        """if (location.protocol === "http:") localStorage["meshkiln.options"] ??= JSON.stringify({asks: false})"""
    )


def inked(locator: Locator) -> NDArray[np.float64]:
    """What is to be seen of an element: (H, W, 3), 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"), float)


def drop(page: Page, files: list[tuple[str, bytes, str]]) -> None:
    """Drop files (name, bytes, media type) on the page, as a hand would."""
    data = [[name, base64.b64encode(content).decode(), kind] for name, content, kind in files]
    page.evaluate(
        """files => {
            const carried = new DataTransfer();
            for (const [name, text, type] of files) {
                const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
                carried.items.add(new File([bytes], name, {type}));
            }
            const event = {dataTransfer: carried, bubbles: true, cancelable: true};
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(kind, event));
        }""",
        data,
    )
