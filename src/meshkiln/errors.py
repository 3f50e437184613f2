"""One exception family. Each error says what was wrong, with which value, and what would be right."""

from __future__ import annotations


class MeshkilnError(Exception):
    """Base of everything Meshkiln raises on purpose."""


class BadInput(MeshkilnError):
    """The request cannot be served as it is: the caller can fix it (exit code 2, HTTP 4xx)."""


class BadPicture(BadInput):
    """The picture cannot be used: not an image, truncated, too large, no subject."""


class BadParameter(BadInput):
    """A parameter is unknown or out of range; the message names what is allowed."""


class BadOutput(BadInput):
    """The place the result should go to cannot be written."""


class UnknownEngine(BadInput):
    """No engine of that name is registered; the message names those that are."""


class StageFailed(MeshkilnError):
    """A stage raised something unexpected: the engine's fault, not the caller's.

    told : what callers of a server may read when the message holds what other code said, which may be anything
    """

    def __init__(self, message: str, told: str = "") -> None:
        super().__init__(message)
        self.told = told


class UpstreamFailed(StageFailed):
    """The servers that make the mesh were asked and failed at it; the message says how."""


class UpstreamsDown(MeshkilnError):
    """No server that makes meshes is in service. retry_after : seconds after which asking again makes sense"""

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PoisonedTask(StageFailed):
    """This input kills the process that works on it: it did so twice with nothing beside it, and is not tried again."""


class StoreError(MeshkilnError):
    """A store cannot be opened or used as asked. told : what others than its owner may read: no folder, no file"""

    def __init__(self, message: str, told: str = "") -> None:
        super().__init__(message)
        self.told = told


class DeadlinePassed(MeshkilnError):
    """The result was not ready by the time the caller was willing to wait for."""


class Cancelled(MeshkilnError):
    """Nobody waits for this computation any more."""


class QueueFull(MeshkilnError):
    """More work is waiting than may wait. retry_after : seconds until there will be room, by measured costs."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Paused(QueueFull):
    """Whoever runs the server lets nothing new in for now; what is stored is answered."""


class PoolClosed(MeshkilnError):
    """The workers are shutting down: what was not finished has to be asked for again."""
