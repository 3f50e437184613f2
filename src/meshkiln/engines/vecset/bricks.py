"""The samples near a surface, in bricks of B³ with a table to find them: memory grows with the surface.

A brick holds samples [k·B, (k+1)·B) of each axis. Where no brick is allocated every sample has the sign of the coarse
sample at the brick's corner. Samples past the last one (index > R) exist only as padding and are outside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meshkiln.engines.vecset.cubes import CORNERS
from meshkiln.engines.vecset.grid import F32, OUTSIDE, Field, axis, on_faces

Bools = NDArray[np.bool_]
Ints = NDArray[np.int32]


def interpolated(values: F32, ratio: int) -> F32:
    """Samples (n, k+1, k+1, k+1) made `ratio` times finer, (n, k·ratio+1, …), trilinearly; signs in between agree."""
    for along in (1, 2, 3):
        low = np.moveaxis(values, along, 0)
        fine = np.empty((len(low) * ratio - ratio + 1, *low.shape[1:]), np.float32)
        fine[::ratio] = low
        for part in range(1, ratio):
            share = np.float32(part / ratio)
            fine[part::ratio] = low[:-1] * (1 - share) + low[1:] * share
        values = np.moveaxis(fine, 0, along)
    return values


class Questions:
    """A field asked at samples of one grid, cut at the box's faces, and how often it was asked.

    queries, calls : so far
    """

    def __init__(self, field: Field, resolution: int, half: float = 1.0) -> None:
        self.field, self.resolution = field, resolution
        self.coordinate = axis(resolution, half)
        self.queries = self.calls = 0

    def __call__(self, index: NDArray[np.int64] | Ints) -> F32:
        """Logits (N,) at samples (N, 3)."""
        if len(index) == 0:
            return np.zeros(0, np.float32)
        self.queries += len(index)
        self.calls += 1
        logits = np.asarray(self.field(self.coordinate[index]), np.float32)
        return np.where(on_faces(index, self.resolution), np.minimum(logits, np.float32(OUTSIDE)), logits)


class Bricks:
    """Samples of one field, asked for as they are needed.

    side : B, samples along a brick's edge
    coarse : (k, k, k) float32   every B-th sample, and one layer of padding that is outside
    coarse_known : (k, k, k) bool   which of them were asked for; the others stand in with the right sign
    values : (n, B, B, B) float32   logits; where not `known`, a stand-in of the right sign
    known : (n, B, B, B) bool       asked of the field
    surprise : (n, B, B, B) float32   by how much the last answers differed from their stand-ins, 0 elsewhere
    changed : (n,) bool   bricks that are new, or hold a sample whose sign an answer changed, since `disturbed`
    asked : (n,) bool   bricks that hold a sample that was asked for since this was last cleared
    """

    def __init__(self, questions: Questions, side: int, coarse: F32, coarse_known: Bools) -> None:
        self.questions, self.side = questions, side
        self.coarse, self.coarse_known = coarse, coarse_known
        # The padding (index −1, which wraps round to the last) is never allocated.
        self.slot = np.full(coarse.shape, -1, np.int32)
        self.place = np.zeros((0, 3), np.int32)
        self.values = np.zeros((0, side, side, side), np.float32)
        self.known = np.zeros((0, side, side, side), bool)
        self.surprise = np.zeros((0, side, side, side), np.float32)
        self.changed = np.zeros(0, bool)
        self.asked = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self.place)

    def allocate(self, place: Ints) -> None:
        """Add bricks at `place` (n, 3), in brick units; those outside the table or there already are left out."""
        last = self.coarse.shape[0] - 2
        place = place[((place >= 0) & (place <= last)).all(axis=1)]
        place = place[self.slot[tuple(place.T)] < 0]
        if len(place) == 0:
            return
        flat = np.unique(np.ravel_multi_index(tuple(place.T), self.slot.shape))
        place = np.stack(np.unravel_index(flat, self.slot.shape), axis=1).astype(np.int32)
        count, side = len(self), self.side
        self.slot[tuple(place.T)] = np.arange(count, count + len(place), dtype=np.int32)
        self.place = np.concatenate([self.place, place])
        past = place[:, :, None] * side + np.arange(side) > self.questions.resolution
        padding = past[:, 0, :, None, None] | past[:, 1, None, :, None] | past[:, 2, None, None, :]
        stand_in = np.where(padding, np.float32(OUTSIDE), self.coarse[tuple(place.T)][:, None, None, None])
        known = padding  # never asked for
        known[:, 0, 0, 0] |= self.coarse_known[tuple(place.T)]
        self.values = np.concatenate([self.values, stand_in])
        self.known = np.concatenate([self.known, known])
        self.surprise = np.concatenate([self.surprise, np.zeros_like(stand_in)])
        self.changed = np.concatenate([self.changed, np.ones(len(place), bool)])
        self.asked = np.concatenate([self.asked, np.zeros(len(place), bool)])

    def every(self) -> Ints:
        """The slots (n,) of all bricks."""
        return np.arange(len(self), dtype=np.int32)

    def disturbed(self) -> Ints:
        """Slots of the bricks that changed since this was last asked, and of those whose halo did."""
        found = self.around(self.changed)
        self.changed[:] = False
        return found

    def around(self, which: Bools) -> Ints:
        """Slots of some bricks (n,), and of those whose halo is in them."""
        found = np.zeros(len(self), bool)
        for offset in CORNERS:
            slots = self.slot[tuple((self.place[which] - offset).T)]
            found[slots[slots >= 0]] = True
        return np.flatnonzero(found).astype(np.int32)

    def neighbours(self, which: Ints | None = None) -> Ints:
        """Slots (m, 8) of the bricks at the corner offsets (own first) of some or all, −1 where none is allocated."""
        place = self.place if which is None else self.place[which]
        return np.stack([self.slot[tuple((place + offset).T)] for offset in CORNERS], axis=1)

    def haloed(self, step: int = 1, which: Ints | None = None, surprise: bool = False) -> F32:
        """Values (m, B/step + 1, …) of every step-th sample of some bricks or all, with one layer of the next ones'.

        surprise : give that instead of the values
        """
        count = self.side // step
        which = self.every() if which is None else which
        values = self.surprise if surprise else self.values
        out = np.empty((len(which), count + 1, count + 1, count + 1), np.float32)
        own = values[:, ::step, ::step, ::step]
        out[:, :-1, :-1, :-1] = own if len(which) == len(self) else own[which]
        for offset, slots in zip(CORNERS[1:], self.neighbours(which).T[1:], strict=True):
            there = (slice(None), *(slice(count, None) if o else slice(0, count) for o in offset))
            source = (slice(None), *(slice(0, 1) if o else slice(None, None, step) for o in offset))
            allocated = slots >= 0
            piece = out[there]
            piece[allocated] = values[source][slots[allocated]]
            free = self.coarse[tuple((self.place[which[~allocated]] + offset).T)]
            piece[~allocated] = 0 if surprise else free[:, None, None, None]
        return out

    def ask(self, wanted: Bools, step: int, which: Ints | None = None) -> int:
        """Ask for samples not yet known; returns how many.

        wanted : (m, B/step + 1, …) bool   every step-th sample of some bricks or all, with the halo, which is handed
            to the bricks it is in
        """
        count = self.side // step
        which = self.every() if which is None else which
        place = self.place[which]
        self.surprise[:] = 0
        pieces, touched = [], []
        for offset in CORNERS[1:]:
            there = (slice(None), *(slice(count, None) if o else slice(0, count) for o in offset))
            piece = wanted[there].reshape(len(which), -1)
            into = np.flatnonzero(piece.any(axis=1))
            pieces.append((offset, into, piece[into].reshape(len(into), *(1 if o else count for o in offset))))
            touched.append(place[into] + np.array(offset, np.int32))
        # All at once: every allocation copies the bricks there are.
        self.allocate(np.concatenate(touched))
        handed = [self.slot[tuple((place[into] + offset).T)] for offset, into, _ in pieces]
        row = np.full(len(self) + 1, -1, np.int32)  # the last for slot −1
        for slots in (which, *handed):
            row[slots] = 0
        row[-1] = -1
        rows = np.flatnonzero(row == 0)
        row[rows] = np.arange(len(rows), dtype=np.int32)
        own = np.zeros((len(rows), count, count, count), bool)
        own[row[which]] = wanted[:, :-1, :-1, :-1]
        for (offset, _, piece), slots in zip(pieces, handed, strict=True):
            inside = slots >= 0
            target = (slice(None), *(slice(0, 1) if o else slice(None) for o in offset))
            # A brick is the neighbour at one offset of one brick only, so no slot repeats here.
            own[target][row[slots[inside]]] |= piece[inside]
        known = self.known[:, ::step, ::step, ::step]
        own &= ~known[rows]
        at = np.nonzero(own)
        at = (rows[at[0]], *at[1:])
        index = self.place[at[0]] * self.side + np.stack(at[1:], axis=1) * step
        values = self.values[:, ::step, ::step, ::step]
        before, now = values[at], self.questions(index)
        values[at] = now
        self.surprise[:, ::step, ::step, ::step][at] = np.abs(now - before)
        self.changed[at[0][(now > 0) != (before > 0)]] = True
        self.asked[at[0]] = True
        known[at] = True
        return len(index)

    def stand_in(self, coarser: F32, ratio: int) -> None:
        """Give every unknown sample `ratio` times finer the value interpolated between those of a `haloed`."""
        held = interpolated(coarser, ratio)[:, :-1, :-1, :-1]
        fine = self.side // (coarser.shape[1] - 1) // ratio
        np.copyto(self.values[:, ::fine, ::fine, ::fine], held, where=~self.known[:, ::fine, ::fine, ::fine])

    def reach_down(self, step: int) -> None:
        """Allocate bricks below whose stand-in differs in sign from a sample at their upper faces."""
        found = []
        for offset in CORNERS[1:]:
            place = self.place - np.array(offset, np.int32)
            free = np.flatnonzero((self.slot[tuple(place.T)] < 0) & (place >= 0).all(axis=1))
            face = (slice(None), *(slice(0, 1) if o else slice(None, None, step) for o in offset))
            inside = self.values[face][free] > 0
            below = self.coarse[tuple(place[free].T)] > 0
            found.append(place[free[(inside != below[:, None, None, None]).any(axis=(1, 2, 3))]])
        self.allocate(np.concatenate(found))
