"""What a read from the disk costs, learned as it happens: what an artifact in memory is worth while the disk has it."""

from __future__ import annotations

from meshkiln.store.disk import INLINE

_SMOOTHING = 0.1
"""Weight of the latest read in the moving averages: they follow some ten to twenty reads."""


class ReadCost:
    """Seconds that a read from a tier takes: moving averages of what a small one takes and of what each byte adds.

    Starts from what `benchmarks/disk_store.py` measured, and follows the reads it is told of. Two threads that report
    at once may lose one report, which an average bears.
    """

    def __init__(self, per_read: float = 20e-6, per_byte: float = 0.3e-9) -> None:
        self.per_read, self.per_byte = per_read, per_byte

    def of(self, size: int) -> float:
        """Seconds that reading `size` bytes is expected to take."""
        return self.per_read + size * self.per_byte

    def observe(self, size: int, seconds: float) -> None:
        """Learn that a read of `size` bytes took `seconds`."""
        if size <= INLINE:
            self.per_read += _SMOOTHING * (seconds - self.per_read)
        else:
            self.per_byte += _SMOOTHING * (max(0.0, seconds - self.per_read) / size - self.per_byte)
