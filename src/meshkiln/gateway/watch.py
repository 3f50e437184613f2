"""Watching: every few seconds how the counts stand goes into the history."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meshkiln.store.tiers import Tiers
from meshkiln.telemetry.history import FINE, History
from meshkiln.telemetry.tally import Tally

if TYPE_CHECKING:
    from meshkiln.gateway.gateway import Gateway

log = logging.getLogger(__name__)


async def watch(gateway: Gateway, history: History, over: asyncio.Event) -> None:
    """Add to `history` until it is `over`, and what happened since the last look then."""
    ended = False
    while not ended:
        ended = over.is_set()
        try:
            counted, standing = counts(gateway), levels(gateway)
            pool, store = await asyncio.to_thread(_parts, gateway)
            await asyncio.to_thread(
                history.add, {**counted, **pool[0], **store[0]}, {**standing, **pool[1], **store[1]}
            )
        except Exception:
            log.exception("the counts could not be looked at")
        if not ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), FINE)


def counts(gateway: Gateway) -> dict[str, Any]:
    """What the gateway counts itself, as JSON values. On the event loop."""
    metrics = gateway.metrics.totals()
    return {
        "requests": _by_two(metrics.requests),
        "generations": {outcome: _counted(tally) for outcome, tally in metrics.generations.items()},
        "answers": {route: _counted(tally) for route, tally in metrics.answers.items()},
        "stages": {stage: _counted(tally) for stage, tally in metrics.stages.items()},
        "hits": _by_two(metrics.hits),
        "saved": dict(metrics.saved),
        "errors": dict(metrics.errors),
    }


def levels(gateway: Gateway) -> dict[str, Any]:
    """How the queue stands. On the event loop."""
    service = gateway.service
    seconds = service.runs.seconds()
    return {
        "waiting": service.runs.waiting,
        "active": len(service.runs.active),
        "queue_seconds": seconds,
        "wait_seconds": seconds / service.workers,
    }


def _parts(gateway: Gateway) -> tuple[tuple[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]]:
    """Counts and levels of the pool, and of the store. Blocks."""
    pool = gateway.service.pool.stats()
    workers = {str(index): worker for index, worker in enumerate(pool.workers)}
    pooled = {
        "batches": {str(size): count for size, count in pool.batches.items()},
        "busy": {name: worker.busy_seconds for name, worker in workers.items()},
        "restarts": dict(pool.restarts),
    }
    held = {"tasks": pool.queued, "memory": {name: worker.memory for name, worker in workers.items()}}
    store = gateway.store
    tiers = [store.memory, store.disk] if isinstance(store, Tiers) else [store]
    stats = {tier.name: asdict(tier.stats()) for tier in tiers}
    kept = {
        "evicted": {name: dict(told["evicted"]) for name, told in stats.items()},
        "faults": {name: dict(told["faults"]) for name, told in stats.items()},
    }
    return (pooled, held), (kept, {"bytes": {name: told["bytes"] for name, told in stats.items()}})


def _counted(tally: Tally) -> dict[str, Any]:
    return {"counts": list(tally.counts), "seconds": tally.seconds}


def _by_two(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    told: dict[str, dict[str, int]] = {}
    for (one, other), count in counts.items():
        told.setdefault(one, {})[other] = count
    return told
