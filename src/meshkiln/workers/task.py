"""What the kiln hands to a runner, and what comes back. Everything can cross a process boundary as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from meshkiln.engines.base import Scalar, Stage
from meshkiln.engines.codec import unpack

if TYPE_CHECKING:
    from meshkiln.engines.base import Value


class Urgency(Protocol):
    """What those who wait want of a computation; it may change while they come and go (a flight is one)."""

    @property
    def deadline(self) -> float | None:
        """The latest of the waiters' deadlines (`time.monotonic`), or None when somebody has none."""
        ...

    @property
    def priority(self) -> int:
        """The highest of the waiters' priorities; higher is sooner."""
        ...

    @property
    def cancelled(self) -> bool:
        """True when nobody waits any more."""
        ...


@dataclass(frozen=True, slots=True)
class Payload:
    """A value on its way between stages: packed, and as arrays or bytes where this process has them already."""

    data: bytes
    media_type: str
    value: Any = None

    def unpacked(self) -> Value:
        """The value, unpacked now unless it is in hand."""
        return unpack(self.data, self.media_type) if self.value is None else cast("Value", self.value)


@dataclass(frozen=True, slots=True)
class Task:
    """One stage to run on one item.

    inputs : what the stage's `reads` name, in that order
    parameters : canonical values of the parameters that matter to the stage
    report : called with (step, steps) as an iterative stage proceeds
    client : who asked first, for fairness; "" is nobody in particular
    asked : when its request was asked (`time.monotonic`), so that older generations of a client are finished before
        newer ones are begun; 0 stands for the moment the task arrives
    trace : context of the span it is run in (W3C traceparent), for servers that are asked to run it
    """

    stage: Stage
    inputs: tuple[Payload, ...]
    parameters: Mapping[str, Scalar]
    urgency: Urgency
    report: Callable[[int, int], None]
    client: str = ""
    asked: float = 0.0
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a stage made of a task. seconds : its own compute seconds, its share of the batch."""

    output: Payload
    seconds: float


Runner = Callable[[Task], Ran]
"""Runs a task, returning when it is done. Raises MeshkilnError for what the caller can fix, else it is a fault."""
