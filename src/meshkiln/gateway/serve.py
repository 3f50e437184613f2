"""Putting a server together from its settings, and running it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import math
import os
import resource
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from meshkiln.engines import upstream
from meshkiln.engines.base import Engine, engines
from meshkiln.engines.picture import CUTOUT, MATTE
from meshkiln.errors import BadParameter, MeshkilnError, UnknownEngine
from meshkiln.flights import Flight, Flights
from meshkiln.gateway import deletion, feedback, gallery, hunyuan3d, operations
from meshkiln.gateway.app import make_app
from meshkiln.gateway.connection import Connection, judge
from meshkiln.gateway.gateway import Gateway
from meshkiln.gateway.hosts import HostGuard
from meshkiln.gateway.hotpath import HotPath
from meshkiln.gateway.jobs import Jobs
from meshkiln.gateway.limits import limited
from meshkiln.gateway.metrics import Metrics
from meshkiln.gateway.requests import Counted, HeadAsGet, Logged, Traced
from meshkiln.gateway.service import Service
from meshkiln.gateway.watch import watch
from meshkiln.keys import Key
from meshkiln.kiln import Kiln
from meshkiln.settings import Settings, variable
from meshkiln.store.base import Store
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from meshkiln.store.tiers import Tiers
from meshkiln.telemetry import logs
from meshkiln.telemetry.history import History
from meshkiln.workers.processes import Pool
from meshkiln.workers.task import Runner

if TYPE_CHECKING:
    from meshkiln.telemetry.traces import Traces

JUDGED = 50
"""Tenths of a second between looks at what connections are up to."""
LAST_LOOK = 2.0
"""Seconds that looking at the counts may take at the end."""
LAST_SPANS = 0.5
"""Seconds that a collector of traces has for the last spans, though the time for stopping be over."""

T = TypeVar("T")


def build(
    settings: Settings, kinds: Mapping[str, Engine] | None = None
) -> tuple[ASGIApp, Service, Callable[..., Connection]]:
    """The whole server as one ASGI application, whose lifespan opens and closes everything; and parts of it.

    The parts are the service, and what makes the connections that ask the application.
    kinds : engines to serve, by name; None is all that are registered
    Raises StoreError when jobs cannot be kept, UnknownEngine for a default engine that is not there, NoUpstreams,
    BadParameter for limits that are none and for a default recipe that no engine has.
    """
    kinds = dict(engines() if kinds is None else kinds)
    kinds.pop(upstream.NAME, None)
    upstreams = None
    if settings.upstreams or settings.engine == upstream.NAME:
        from meshkiln.engines.upstream.upstreams import Upstreams

        kinds[upstream.NAME] = upstream.engine_of(settings)
        upstreams = Upstreams(
            settings.upstreams,
            concurrency=settings.upstream_concurrency,
            timeout=settings.stage_seconds,
            polling=settings.upstream_polling,
        )
    recipes = {name for kind in kinds.values() for name in kind.recipes}
    if recipes and settings.recipe not in recipes:
        raise BadParameter(f"no engine has a recipe {settings.recipe!r}; there are {', '.join(sorted(recipes))}")
    kinds = limited(kinds, settings.limits)
    if settings.engine not in kinds:
        raise UnknownEngine(f"no engine is called {settings.engine!r}; there are {', '.join(kinds)}")
    if any(MATTE in kind.stages for kind in kinds.values()):
        # First, because descriptions of parameters that several engines have are the last one's.
        kinds = {CUTOUT.name: CUTOUT, **kinds}
    jobs = Jobs(jobs_folder(settings), settings.retention_seconds)
    store = open_store(settings)
    workers = settings.workers or len(os.sched_getaffinity(0))
    pool = Pool(
        workers,
        preload=() if settings.engine == upstream.NAME else kinds[settings.engine].stages,
        timeout=settings.stage_seconds,
        memory=settings.worker_bytes,
        # Admission is the service's, which knows whole generations: what it accepted is not refused half way.
        max_queue_seconds=math.inf,
        max_wait=settings.batch_seconds,
        batching=settings.batching,
        poisoned=jobs.poisoned(),
        variables={variable("picture_pixels"): str(settings.picture_pixels)},
    )
    leases = store.leases if isinstance(store, Tiers | Disk) else None
    flights = Flights(leases=leases) if settings.single_flight else Alone()
    runners: dict[str, Runner] = {}
    lanes, remotely = workers, upstreams is not None and settings.engine == upstream.NAME
    if upstreams is not None:
        from meshkiln.workers.remote import remote

        runners[upstream.NAME] = remote(upstreams, pool)
        if remotely:
            lanes = len(upstreams.stats()) * settings.upstream_concurrency
    kilns = {
        name: Kiln(kind, store, flights=flights, runner=runners.get(name, pool.run)) for name, kind in kinds.items()
    }
    service = Service(
        kilns,
        store,
        pool,
        jobs,
        lanes,
        settings.queue_seconds,
        settings.queue_generations,
        joining=settings.single_flight,
        remote=remotely,
    )
    metrics = Metrics(settings.telemetry)
    service.succeeded, service.ended = metrics.succeeded, metrics.ended
    service.traces = traces = _traces(settings)
    gateway = Gateway(settings, service, metrics)
    verdicts = feedback.Feedback(jobs_folder(settings))
    kept = jobs_folder(settings).parent / "history.sqlite" if settings.telemetry else None
    history = History(kept, time.time, time.monotonic)
    if upstreams is not None:
        from meshkiln.gateway.upstream_metrics import UpstreamMetrics

        gateway.exposition.registry.register(UpstreamMetrics(upstreams))

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        over = asyncio.Event()
        watching = asyncio.create_task(watch(gateway, history, over)) if settings.telemetry else None
        try:
            yield
        finally:
            until = time.monotonic() + settings.shutdown_seconds
            await service.stop(settings.shutdown_seconds)
            if watching is not None:
                # What ended meanwhile belongs to the day too. A disk that does not answer costs it that.
                over.set()
                await asyncio.wait((watching,), timeout=LAST_LOOK)
                watching.cancel()
            # What is still being computed belongs to jobs that go on at the next start.
            if upstreams is not None:
                await asyncio.to_thread(upstreams.close)
            await asyncio.to_thread(pool.close, max(0.0, until - time.monotonic()))
            await asyncio.to_thread(store.close)
            history.close()
            if traces is not None:
                await asyncio.to_thread(traces.close, max(LAST_SPANS, until - time.monotonic()))
            verdicts.close()
            jobs.close()

    framework = make_app(gateway, lifespan)
    hunyuan3d.add_routes(framework, gateway)
    feedback.add_routes(framework, gateway, verdicts)
    gallery.add_routes(framework, gateway)
    deletion.add_routes(framework, gateway)
    operations.add_routes(framework, gateway, history)
    app: ASGIApp = HeadAsGet(Counted(framework, metrics))
    hot = HotPath(app, gateway) if settings.hot_path else None
    guard = HostGuard(hot or app, settings.host, settings.allowed_hosts, settings.cors_origins, metrics.refused)
    whole: ASGIApp = guard
    if settings.log_requests:
        whole = Logged(whole)
    if traces is not None:
        whole = Traced(whole, traces)
    shortcut = None
    if hot is not None and not settings.log_requests:
        hot.serves = guard.serves
        shortcut = hot.shortcut
    return whole, service, partial(Connection, shortcut, metrics.refused)


class Server(uvicorn.Server):
    """The HTTP server: looks after its connections, and lets the service know at once when it is to stop."""

    def __init__(
        self,
        settings: Settings,
        kinds: Mapping[str, Engine] | None = None,
        listens: Callable[[str, int], None] = lambda host, port: None,
    ) -> None:
        """`listens` is told the address and port once they are bound, which is when anybody can connect."""
        self.listens = listens
        app, self.service, connection = build(settings, kinds)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_level="warning",
                access_log=False,
                loop="uvloop",
                http=connection,  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                # A header that anybody can send tells nothing of who asks.
                proxy_headers=False,
                # Those who wait are let go when it begins; what then takes its time is sending answers.
                timeout_graceful_shutdown=max(1, int(min(10.0, settings.shutdown_seconds))),
                server_header=False,
                backlog=4096,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind, and say where: port 0 is whichever was free."""
        await super().startup(sockets)
        if self.started:
            self.listens(*self.servers[0].sockets[0].getsockname()[:2])

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % JUDGED == 0:
            judge(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in bounded time; what was accepted and is not finished is on disk."""
        self.service.closing()
        await super().shutdown(sockets)


def run(
    settings: Settings,
    kinds: Mapping[str, Engine] | None = None,
    listens: Callable[[str, int], None] = lambda host, port: None,
) -> None:
    """Serve until told to stop: SIGTERM or SIGINT once; a second SIGINT stops at once. Raises MeshkilnError.

    kinds : engines to serve, by name; None is all that are registered
    listens : told the address and port once they are bound
    """
    _many_connections()
    _keep_freed_memory()
    server = Server(settings, kinds, listens)
    # After the HTTP server has set up its own.
    logs.begin(settings.log_json, settings.log_requests)
    # The server raises the signal again once it has stopped: that is then the end, and no failure.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is there by now stays, and a full collection need not look through it while answers wait.
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        server.run()


class Alone(Flights):
    """Flights that nobody joins: what single-flight is measured against."""

    async def arun(self, key: Key, compute: Callable[[Flight], T], **asked: Any) -> T:
        """As `Flights.arun`, under a key of this caller's own."""
        return await super().arun(Key(secrets.token_bytes(32)), compute, **asked)


def _many_connections() -> None:
    """As many open files as the system allows: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_freed_memory() -> None:
    """Have the C library keep what is freed, up to 32 MiB, for the next body.

    Else it may give the pages of a 100 KiB body back at its end and ask for them again at the next one's beginning:
    25 page faults a request, half of what such a request costs, depending on what happens to lie at the heap's end.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of mallopt(3)
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        library = ctypes.CDLL(None)
        library.mallopt(trim_threshold, 32 * 2**20)
        library.mallopt(mmap_threshold, 4 * 2**20)


def open_store(settings: Settings) -> Store:
    """The store that the switches ask for."""
    memory = Memory(settings.memory_bytes if settings.memory else 0, settings.memory_entries)
    if not settings.disk:
        return memory
    disk = Disk(settings.cache_dir or None, settings.disk_bytes)
    return Tiers(memory, disk) if settings.memory else disk


def _traces(settings: Settings) -> Traces | None:
    """Traces to the collector that is named. Raises MeshkilnError when what sends them is not installed."""
    if not settings.traces_endpoint:
        return None
    try:
        from meshkiln.telemetry.traces import to_collector
    except ModuleNotFoundError as error:
        raise MeshkilnError(f"traces need {error.name}: install meshkiln[otel], or unset traces_endpoint") from None
    return to_collector(settings.traces_endpoint, settings.traces_share)


def jobs_folder(settings: Settings) -> Path:
    """Where accepted jobs are kept."""
    if settings.data_dir:
        return Path(settings.data_dir).expanduser().absolute() / "jobs"
    from platformdirs import user_data_path

    return user_data_path("meshkiln", appauthor=False) / "jobs"
