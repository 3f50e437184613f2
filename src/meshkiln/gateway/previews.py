"""Pictures of results, whole or half way, for people: made by a worker when first asked for, then stored like those."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping

from meshkiln.engines.base import Stage
from meshkiln.flights import Flight
from meshkiln.keys import Key, stage_key
from meshkiln.kiln import Kiln
from meshkiln.store.base import Artifact
from meshkiln.workers.task import Payload, Runner, Task


def link(key: str) -> str:
    """Where the picture of the artifact `key` (hexadecimal) is."""
    return f"/v1/artifacts/{key}?format=png"


def keys(kilns: Mapping[str, Kiln], key: Key) -> set[Key]:
    """Where pictures of what is stored under `key` may be: engines share stages, so several may have one there."""
    return {_key(kiln, preview, key) for kiln, _, preview in _previews(kilns)}


def stored(kilns: Mapping[str, Kiln], key: Key) -> tuple[Artifact, str] | None:
    """The picture of what is (or was) stored under `key`, when it was made before, and the tier that has it.

    Blocks: call it on a thread.
    """
    store = next(iter(kilns.values())).store
    return next(filter(None, map(store.get_tier, keys(kilns, key))), None)


async def made(kilns: Mapping[str, Kiln], runner: Runner, key: Key) -> tuple[Artifact, float | None] | None:
    """The picture of what is stored under `key`, made now; None when nothing is, or nothing to be shown.

    With the compute seconds that it took; None when somebody else was at it.
    """
    store = next(iter(kilns.values())).store
    artifact = await asyncio.to_thread(store.get, key)
    if artifact is None:
        return None
    of = (artifact.provenance.get("engine"), artifact.provenance.get("stage"))
    for kiln, stage, preview in _previews(kilns):
        if (kiln.engine.name, stage.name) == of:
            return await _flown(kiln, preview, runner, key, artifact)
    return None


async def _flown(
    kiln: Kiln, preview: Stage, runner: Runner, key: Key, artifact: Artifact
) -> tuple[Artifact, float | None]:
    picture = _key(kiln, preview, key)
    seconds: float | None = None

    def compute(flight: Flight) -> Artifact:
        nonlocal seconds
        payload = Payload(artifact.data, artifact.media_type)
        ran = runner(Task(preview, (payload,), {}, flight, lambda step, steps: None))
        provenance = {**artifact.provenance, "stage": preview.name, "version": preview.version, "made": time.time()}
        shown = Artifact.of(ran.output.data, ran.seconds, preview.media_type, provenance)
        kiln.store.put(picture, shown, durable=False)
        seconds = ran.seconds
        return shown

    shown = await kiln.flights.arun(picture, compute, found=lambda: kiln.store.get(picture))
    return shown, seconds


def _previews(kilns: Mapping[str, Kiln]) -> Iterator[tuple[Kiln, Stage, Stage]]:
    for kiln in kilns.values():
        for stage in kiln.engine.stages:
            if stage.preview is not None:
                yield kiln, stage, stage.preview


def _key(kiln: Kiln, preview: Stage, key: Key) -> Key:
    return stage_key(preview.fingerprint, {}, [key], kiln.namespace)
