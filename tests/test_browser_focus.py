"""The keyboard in the studio: what has the focus when what had it goes."""

from __future__ import annotations

import pytest

from test_browser import mug

pytest.importorskip("playwright.sync_api", reason="the browser's driver is not installed: the studio is not tested")

from playwright.sync_api import Page, expect

from browser import drop

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("browser")]


def test_who_takes_something_off_the_list_is_at_its_neighbour(page: Page) -> None:
    # Refused at once, without the server.
    drop(page, [(f"{name}.png", b"", "image/png") for name in ("oldest", "older", "newer", "newest")])
    expect(page.locator('[data-state="failed"]')).to_have_count(4)
    for name, next_to_it in (("newer", "older"), ("oldest", "older"), ("older", "newest")):
        button = page.get_by_role("button", name=f"Take {name}.png off the list")
        button.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".title:focus .name")).to_have_text(f"{next_to_it}.png")
    page.get_by_role("button", name="Take newest.png off the list").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()


def test_who_takes_several_off_the_list_is_where_they_were(page: Page) -> None:
    page.route("**/v1/generations?*", lambda route: None)
    drop(page, [*((f"{n}.png", b"", "image/png") for n in range(3)), mug((50, 50, 50))])
    expect(page.locator('[data-state="failed"]')).to_have_count(3)
    expect(page.get_by_role("button", name="Cancel mug.png")).to_be_visible()
    page.get_by_role("button", name="Take 3 finished off the list").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Your pictures")).to_be_focused()
    # A button that goes because it was pressed leaves its picture in hand.
    page.get_by_role("button", name="Cancel mug.png").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".title")).to_be_focused()


def test_who_looks_elsewhere_is_left_there_when_another_tab_takes_something_away(page: Page) -> None:
    drop(page, [(f"{n}.png", b"", "image/png") for n in range(2)])
    expect(page.locator('[data-state="failed"]')).to_have_count(2)
    page.get_by_role("button", name="Take 0.png off the list").focus()
    page.get_by_role("button", name="Choose pictures").focus()
    other = page.context.new_page()
    other.goto("/")
    other.get_by_role("button", name="Take 0.png off the list").click()
    expect(page.locator("[data-item]")).to_have_count(1)
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()
    other.close()
