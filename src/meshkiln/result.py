"""What a generation gives back: the bytes, and which stage was found where or computed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from meshkiln.keys import Digest, Key
from meshkiln.request import Link
from meshkiln.store.base import Artifact, Json
from meshkiln.workers.task import Payload


@dataclass(frozen=True, slots=True)
class Made:
    """A stage's output in hand.

    source : the tier that held it ("memory", "disk") or "computed"
    value : the output as values, when this process computed it; else it is unpacked from the artifact when wanted
    joined : it was computed by a flight that somebody else had started
    trace : context of the span in which it was computed (W3C traceparent); empty when nobody traces
    """

    artifact: Artifact
    source: str
    value: Any = None
    joined: bool = False
    trace: str = ""

    def payload(self) -> Payload:
        """The output as the next stage reads it."""
        return Payload(self.artifact.data, self.artifact.media_type, self.value)

    def followed(self) -> Made:
        """The same output as somebody sees it who only joined the flight."""
        return replace(self, joined=True)


@dataclass(frozen=True, slots=True)
class StageReport:
    """The part one stage took in an answer.

    source : "memory" or "disk" (found there), "computed", or None when a later stage's artifact made it unnecessary
    seconds : compute seconds when computed, else 0
    bytes : size of the stage's packed output when it was in hand, else 0
    made : when that output was computed, in seconds since the epoch; None when it was not in hand, or does not tell
    """

    stage: str
    key: Key | None
    source: str | None
    seconds: float = 0.0
    bytes: int = 0
    joined: bool = False
    made: float | None = None

    def as_json(self) -> dict[str, Json]:
        """The report as JSON values; the key in hexadecimal."""
        return {
            "stage": self.stage,
            "key": None if self.key is None else self.key.hex(),
            "source": self.source,
            "seconds": round(self.seconds, 6),
            "bytes": self.bytes,
            "joined": self.joined,
            "made": self.made,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """A finished generation.

    key, digest : of the exported file
    cost : compute seconds of every stage from nothing
    saved : `cost` less the compute seconds of the stages that ran for this answer
    seconds : wall-clock time of this answer
    """

    data: bytes = field(repr=False)
    media_type: str
    key: Key
    digest: Digest
    stages: tuple[StageReport, ...]
    cost: float
    saved: float
    seconds: float
    provenance: Mapping[str, Json]

    def save(self, path: str | Path) -> Path:
        """Write the file whole or not at all, and return its path. Raises BadOutput when it cannot be written."""
        from meshkiln.output import write_whole

        return write_whole(Path(path), self.data)

    def as_json(self) -> dict[str, Json]:
        """Everything but the bytes, as JSON values."""
        return {
            "key": self.key.hex(),
            "digest": self.digest.hex(),
            "media_type": self.media_type,
            "bytes": len(self.data),
            "cost_seconds": round(self.cost, 6),
            "saved_seconds": round(self.saved, 6),
            "seconds": round(self.seconds, 6),
            "stages": [stage.as_json() for stage in self.stages],
        }


def result_of(links: Sequence[Link], made: Mapping[str, Made], seconds: float) -> Result:
    """The result of a generation whose last stage is in hand.

    links : the resolved chain; made : what is in hand by stage name; seconds : wall-clock time of the answer
    """
    last = made[links[-1].stage.name].artifact
    key = links[-1].output
    assert key is not None
    costs = cast("dict[str, float]", last.provenance.get("costs") or {})
    ran = sum(m.artifact.cost for m in made.values() if m.source == "computed" and not m.joined)
    cost = sum(costs.values())
    return Result(
        data=last.data,
        media_type=last.media_type,
        key=key,
        digest=last.digest,
        stages=tuple(report_of(link, made.get(link.stage.name)) for link in links),
        cost=cost,
        saved=max(0.0, cost - ran),
        seconds=seconds,
        # The caller's own: what he does to it must not reach the store.
        provenance=copy.deepcopy(dict(last.provenance)),
    )


def result_of_artifact(key: Key, artifact: Artifact) -> Result:
    """The result of a generation of which only the last artifact is known, as found."""
    costs = cast("dict[str, float]", artifact.provenance.get("costs") or {})
    stage = str(artifact.provenance.get("stage", "export"))
    reports = [StageReport(name, None, None) for name in costs if name != stage]
    return Result(
        data=artifact.data,
        media_type=artifact.media_type,
        key=key,
        digest=artifact.digest,
        stages=(*reports, StageReport(stage, key, "memory", bytes=len(artifact.data))),
        cost=sum(costs.values()),
        saved=sum(costs.values()),
        seconds=0.0,
        provenance=artifact.provenance,
    )


def report_of(link: Link, made: Made | None) -> StageReport:
    """The part of a stage whose output is `made`, None when it was not needed."""
    if made is None:
        return StageReport(link.stage.name, link.key, None)
    ran = made.source == "computed" and not made.joined
    at = made.artifact.provenance.get("made")
    return StageReport(
        stage=link.stage.name,
        key=link.key,
        source=made.source,
        seconds=made.artifact.cost if ran else 0.0,
        bytes=len(made.artifact.data),
        joined=made.joined,
        made=at if isinstance(at, float) else None,
    )
