"""Inputs that kill whoever works on them: remembered, so that they do not come back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from meshkiln.keys import digest, encode
from meshkiln.workers.task import Task

BOUND = 1024


class Poison:
    """A bounded set of names, oldest out first. A name is 64 hexadecimal digits, so that it can be kept elsewhere.

    It stands for a stage's fingerprint and the digests of the inputs: neither another seed nor another name brings the
    input back, and a new version of the stage gets a new chance.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = OrderedDict.fromkeys(names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def names(self) -> tuple[str, ...]:
        """All names, oldest first."""
        return tuple(self._names)

    def add(self, task: Task) -> str:
        """Remember `task`'s input; its name."""
        name = name_of(task)
        self._names[name] = None
        while len(self._names) > BOUND:
            self._names.popitem(last=False)
        return name

    def forget(self, name: str) -> bool:
        """Let what `name` stands for try again; False when it is not known."""
        return self._names.pop(name, self) is None


def name_of(task: Task) -> str:
    """What `task` is known by."""
    return digest(encode([list(task.stage.fingerprint), [digest(payload.data) for payload in task.inputs]])).hex()
