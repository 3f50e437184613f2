"""What several test modules share: one browser, one server of the real engines behind the studio, stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

    from meshkiln.flights import Flights
    from meshkiln.store.base import Store
    from meshkiln.store.disk import Disk


# Of a module, not of the session: while the browser's driver is there, its event loop runs in the thread of the tests,
# and no other test of this process could start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright.sync_api", reason="the browser's driver is not installed: pages are not tested")
    from browser import chromium

    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the server that the studio's tests share: each gives it pictures of its own."""
    from meshkiln.engines import inflate, vecset
    from serving import serving

    kinds = {"inflate": inflate.ENGINE, "vecset": vecset.ENGINE}
    with serving(tmp_path_factory.mktemp("studio"), kinds, engine="inflate") as http:
        yield http


@pytest.fixture
def context(browser: Browser, studio: httpx.Client) -> Iterator[BrowserContext]:
    """A person who has never been here."""
    made = browser.new_context(base_url=str(studio.base_url), accept_downloads=True)
    made.set_default_timeout(60_000)
    yield made
    made.close()


@pytest.fixture
def by_itself(context: BrowserContext) -> None:
    """They have set that the studio goes on without asking about cut-outs. Named by `usefixtures`, so before `page`."""
    from browser import by_itself

    by_itself(context)


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """The studio, which asks nobody but its server and whose scripts fail nowhere."""
    from browser import opened

    with opened(context, "/") as found:
        yield found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    from meshkiln.store.disk import Disk

    disk = Disk(tmp_path / "store")
    yield disk
    disk.close()


@pytest.fixture(params=["memory", "tiers"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    from meshkiln.store.disk import Disk
    from meshkiln.store.memory import Memory
    from meshkiln.store.tiers import Tiers

    store = Memory() if request.param == "memory" else Tiers(Memory(), Disk(tmp_path / "store"))
    yield store
    store.close()


@pytest.fixture
def flights() -> Flights:
    from meshkiln.flights import Flights

    return Flights()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


@pytest.fixture
def decorate(store: Store, flights: Flights) -> Callable[..., Callable[[Callable[..., Any]], Any]]:
    """`once` over that store and those flights, with its options."""
    from meshkiln.once import once

    return lambda **words: lambda function: once(store, flights, function, **words)
