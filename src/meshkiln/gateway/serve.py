"""Putting a server together from its settings, and running it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from meshkiln.engines.base import Engine, engines
from meshkiln.errors import UnknownEngine
from meshkiln.flights import Flights
from meshkiln.gateway import hunyuan3d
from meshkiln.gateway.app import Gateway, make_app
from meshkiln.gateway.hosts import HostGuard
from meshkiln.gateway.hotpath import HotPath
from meshkiln.gateway.jobs import Jobs
from meshkiln.gateway.metrics import Metrics
from meshkiln.gateway.service import Service
from meshkiln.kiln import Kiln
from meshkiln.settings import Settings
from meshkiln.store.base import Store
from meshkiln.store.disk import Disk
from meshkiln.store.memory import Memory
from meshkiln.store.tiers import Tiers
from meshkiln.workers.processes import Pool

log = logging.getLogger(__name__)


def build(settings: Settings, kinds: Mapping[str, Engine] | None = None) -> ASGIApp:
    """The whole server as one ASGI application; its lifespan opens and closes everything.

    kinds : engines to serve, by name; None is all that are registered
    Raises StoreError when jobs cannot be kept, UnknownEngine for a default engine that is not there.
    """
    kinds = engines() if kinds is None else kinds
    if settings.engine not in kinds:
        raise UnknownEngine(f"no engine is called {settings.engine!r}; there are {', '.join(kinds)}")
    store = open_store(settings)
    jobs = Jobs(jobs_folder(settings), settings.retention_seconds)
    workers = settings.workers or len(os.sched_getaffinity(0))
    pool = Pool(
        workers,
        preload=kinds[settings.engine].stages,
        timeout=settings.stage_seconds,
        memory=settings.worker_bytes,
        max_queue_seconds=settings.queue_seconds,
        max_wait=settings.batch_seconds,
        batching=settings.batching,
        poisoned=jobs.poisoned(),
    )
    leases = store.leases if isinstance(store, Tiers | Disk) else None
    flights = Flights(leases=leases)
    kilns = {name: Kiln(kind, store, flights=flights, runner=pool.run) for name, kind in kinds.items()}
    service = Service(kilns, store, pool, jobs, workers, settings.queue_seconds)
    gateway = Gateway(settings, service, Metrics(service, store))

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        resumed = await service.start()
        if resumed:
            log.info("going on with %d jobs that were accepted before", resumed)
        try:
            yield
        finally:
            await service.stop(settings.shutdown_seconds)
            pool.close(settings.shutdown_seconds)
            jobs.close()
            store.close()

    framework = make_app(gateway, lifespan)
    hunyuan3d.add_routes(framework, gateway)
    app: ASGIApp = framework
    if settings.hot_path:
        app = HotPath(app, gateway)
    return HostGuard(app, settings.host, settings.allowed_hosts, settings.cors_origins)


def run(settings: Settings) -> None:
    """Serve until told to stop. A second signal stops at once."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    uvicorn.run(
        build(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
        timeout_graceful_shutdown=max(1, int(settings.shutdown_seconds)),
        server_header=False,
        backlog=4096,
    )


def open_store(settings: Settings) -> Store:
    """The store that the switches ask for."""
    memory = Memory(settings.memory_bytes if settings.memory else 0, settings.memory_entries)
    if not settings.disk:
        return memory
    disk = Disk(settings.cache_dir or None, settings.disk_bytes)
    return Tiers(memory, disk) if settings.memory else disk


def jobs_folder(settings: Settings) -> Path:
    """Where accepted jobs are kept."""
    if settings.data_dir:
        return Path(settings.data_dir).expanduser().absolute() / "jobs"
    from platformdirs import user_data_path

    return user_data_path("meshkiln", appauthor=False) / "jobs"
