"""Eviction policies to compare ours with, under the memory store's own policy protocol.

Each follows its paper, adapted to sizes in the way its authors or their simulators do: bounds and queues are in bytes.
All but `GreedyDualStrict` are blind to cost. None of them ships: they are here to be measured against.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from heapq import heappop, heappush

from meshkiln.keys import Key
from meshkiln.store.policies import Entry


class _Peer:
    sees_hits = True

    def hit(self, entry: Entry) -> None:
        raise NotImplementedError


class Lru(_Peer):
    """The least recently used goes."""

    def __init__(self) -> None:
        self._order: OrderedDict[Key, Entry] = OrderedDict()

    def add(self, entry: Entry) -> None:
        self._order[entry.key] = entry

    def hit(self, entry: Entry) -> None:
        self._order.move_to_end(entry.key)

    def evict(self) -> Entry:
        return self._order.popitem(last=False)[1]

    def remove(self, entry: Entry) -> None:
        del self._order[entry.key]


class Lfu(_Peer):
    """The least often used since it came goes; the least recently used among equals."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Entry]] = []
        self._place: dict[Key, int] = {}
        self._now = 0

    def add(self, entry: Entry) -> None:
        self._push(entry)

    def hit(self, entry: Entry) -> None:
        self._push(entry)

    def _push(self, entry: Entry) -> None:
        self._now += 1
        self._place[entry.key] = self._now
        heappush(self._heap, (entry.hits, self._now, entry))

    def evict(self) -> Entry:
        while True:
            _, place, entry = heappop(self._heap)
            if self._place.get(entry.key) == place:
                del self._place[entry.key]
                return entry

    def remove(self, entry: Entry) -> None:
        del self._place[entry.key]


class Sieve(_Peer):
    """SIEVE: a queue and a hand that spares what was visited since it last passed.

    Source: Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024, algorithm 1.
    """

    def __init__(self) -> None:
        self._newer: dict[Entry, Entry | None] = {}
        self._older: dict[Entry, Entry | None] = {}
        self._head: Entry | None = None
        self._tail: Entry | None = None
        self._hand: Entry | None = None
        self._visited: set[Entry] = set()

    def add(self, entry: Entry) -> None:
        self._newer[entry], self._older[entry] = None, self._head
        if self._head is not None:
            self._newer[self._head] = entry
        self._head = entry
        self._tail = self._tail or entry

    def hit(self, entry: Entry) -> None:
        self._visited.add(entry)

    def evict(self) -> Entry:
        at = self._hand or self._tail
        while at in self._visited:
            self._visited.discard(at)
            at = self._newer[at] or self._tail
        assert at is not None
        self._hand = self._newer[at]
        self._unlink(at)
        return at

    def remove(self, entry: Entry) -> None:
        if self._hand is entry:
            self._hand = self._newer[entry]
        self._visited.discard(entry)
        self._unlink(entry)

    def _unlink(self, entry: Entry) -> None:
        newer, older = self._newer.pop(entry), self._older.pop(entry)
        if newer is not None:
            self._older[newer] = older
        else:
            self._head = older
        if older is not None:
            self._newer[older] = newer
        else:
            self._tail = newer


class S3Fifo(_Peer):
    """S3-FIFO: a small queue for the new (a tenth of the bytes), a main queue, and a ghost of the small one.

    Source: Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP 2023, algorithm 1. The ghost remembers
    as many bytes of keys as the main queue may hold.
    """

    def __init__(self, max_bytes: int) -> None:
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._ghost: OrderedDict[Key, int] = OrderedDict()
        self._small_bytes = self._ghost_bytes = 0
        self._small_target = max_bytes // 10
        self._ghost_target = max_bytes - max_bytes // 10
        self._freq: dict[Entry, int] = {}

    def add(self, entry: Entry) -> None:
        self._freq[entry] = 0
        remembered = self._ghost.pop(entry.key, None)
        if remembered is not None:
            self._ghost_bytes -= remembered
            self._main.appendleft(entry)
        else:
            self._small.appendleft(entry)
            self._small_bytes += entry.size

    def hit(self, entry: Entry) -> None:
        self._freq[entry] = min(self._freq[entry] + 1, 3)

    def evict(self) -> Entry:
        while True:
            if self._small and (self._small_bytes >= self._small_target or not self._main):
                entry = self._small.pop()
                self._small_bytes -= entry.size
                if entry not in self._freq:
                    continue
                if self._freq[entry] > 1:
                    self._freq[entry] = 0
                    self._main.appendleft(entry)
                    continue
                self._remember(entry)
                del self._freq[entry]
                return entry
            entry = self._main.pop()
            if entry not in self._freq:
                continue
            if self._freq[entry] > 0:
                self._freq[entry] -= 1
                self._main.appendleft(entry)
                continue
            del self._freq[entry]
            return entry

    def remove(self, entry: Entry) -> None:
        del self._freq[entry]  # its place in a queue is skipped when it comes up

    def _remember(self, entry: Entry) -> None:
        self._ghost[entry.key] = entry.size
        self._ghost_bytes += entry.size
        while self._ghost_bytes > self._ghost_target:
            self._ghost_bytes -= self._ghost.popitem(last=False)[1]


class WTinyLfu(_Peer):
    """W-TinyLFU: a window of 1 % for the new, a segmented LRU, and admission by frequency between the two.

    Source: Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM ToS 2017. Frequencies
    are exact counts up to 15, halved after as many uses as ten times the entries held (the sketch's error is spared
    it). With sizes, a candidate is compared with each victim in turn, as Caffeine does.
    """

    def __init__(self, max_bytes: int) -> None:
        self._window: OrderedDict[Key, Entry] = OrderedDict()
        self._probation: OrderedDict[Key, Entry] = OrderedDict()
        self._protected: OrderedDict[Key, Entry] = OrderedDict()
        self._bytes = {id(self._window): 0, id(self._probation): 0, id(self._protected): 0}
        self._window_target = max_bytes // 100
        self._protected_target = (max_bytes - self._window_target) * 8 // 10
        self._freq: dict[Key, int] = {}
        self._uses = 0
        self._candidates: deque[Entry] = deque()

    def _count(self, key: Key) -> None:
        self._freq[key] = min(self._freq.get(key, 0) + 1, 15)
        self._uses += 1
        held = len(self._window) + len(self._probation) + len(self._protected)
        if self._uses >= 10 * max(held, 100):
            self._uses = 0
            self._freq = {key: count // 2 for key, count in self._freq.items() if count > 1}

    def _put(self, queue: OrderedDict[Key, Entry], entry: Entry) -> None:
        queue[entry.key] = entry
        self._bytes[id(queue)] += entry.size

    def _take(self, queue: OrderedDict[Key, Entry], entry: Entry) -> None:
        del queue[entry.key]
        self._bytes[id(queue)] -= entry.size

    def add(self, entry: Entry) -> None:
        self._count(entry.key)
        self._candidates.clear()  # those of earlier arrivals found room, or were admitted
        self._put(self._window, entry)
        while self._bytes[id(self._window)] > self._window_target:
            oldest = next(iter(self._window.values()))
            self._take(self._window, oldest)
            self._put(self._probation, oldest)
            self._candidates.append(oldest)

    def hit(self, entry: Entry) -> None:
        self._count(entry.key)
        if entry.key in self._window:
            self._window.move_to_end(entry.key)
        elif entry.key in self._protected:
            self._protected.move_to_end(entry.key)
        else:
            self._take(self._probation, entry)
            self._put(self._protected, entry)
            while self._bytes[id(self._protected)] > self._protected_target:
                oldest = next(iter(self._protected.values()))
                self._take(self._protected, oldest)
                self._put(self._probation, oldest)

    def evict(self) -> Entry:
        candidate = None
        while self._candidates and candidate is None:
            candidate = self._candidates[0]
            if candidate.key not in self._probation or candidate.artifact is None:
                self._candidates.popleft()
                candidate = None
        queue = self._probation or self._protected or self._window
        victim = next(iter(queue.values()))
        if candidate is not None and victim is not candidate:
            if self._freq.get(candidate.key, 0) <= self._freq.get(victim.key, 0):
                victim = candidate
                self._candidates.popleft()
        elif candidate is victim:
            self._candidates.popleft()
        self._take(queue, victim)
        return victim

    def remove(self, entry: Entry) -> None:
        for queue in (self._window, self._probation, self._protected):
            if entry.key in queue:
                self._take(queue, entry)


class GreedyDualStrict(_Peer):
    """Plain GreedyDual-Size-Frequency: the priority is set anew on each hit.

    Source: Cherkasova, HPL-98-69R1, 1998. With `cost_blind`, every miss costs one second.
    """

    def __init__(self, cost_blind: bool = False) -> None:
        self._cost_blind = cost_blind
        self._age = 0.0
        self._heap: list[tuple[float, int, Entry]] = []
        self._place: dict[Key, int] = {}
        self._now = 0

    def add(self, entry: Entry) -> None:
        self._now += 1
        cost = 1.0 if self._cost_blind else entry.miss_cost
        self._place[entry.key] = self._now
        heappush(self._heap, (self._age + (1 + entry.hits) * cost / (entry.size + 1), self._now, entry))

    hit = add

    def evict(self) -> Entry:
        while True:
            rank, place, entry = heappop(self._heap)
            if self._place.get(entry.key) == place:
                del self._place[entry.key]
                self._age = rank
                return entry

    def remove(self, entry: Entry) -> None:
        del self._place[entry.key]


class Lhd(_Peer):
    """LHD: the least hit density goes, of a sample. With `cost_blind=False` density is in seconds instead of hits.

    Source: Beckmann, Chen, Cidon, "LHD: Improving Cache Hit Rate by Maximizing Hit Density", NSDI 2018: classes by the
    ages at the last two hits, densities per byte estimated anew from events that decay by 0.9, candidates from a sample
    and the latest arrivals. For traces as short as ours ages are 500 steps of 64 uses and estimates are made every
    2,000 uses instead of every million (of five settings the best on gentd26 at 1 %); without explorers.
    """

    AGES = 500
    CLASSES = 16

    def __init__(self, cost_blind: bool = True, seed: int = 1) -> None:
        self._cost_blind = cost_blind
        self._draw = random.Random(seed)
        self._items: list[Entry] = []
        self._place: dict[Entry, int] = {}
        self._last: dict[Entry, int] = {}
        self._class: dict[Entry, int] = {}
        self._ages: dict[Entry, tuple[int, int]] = {}
        self._now = 0
        self._shift = 64
        self._next = 2_000
        self._hits = [[0.0] * self.AGES for _ in range(self.CLASSES)]
        self._ends = [[0.0] * self.AGES for _ in range(self.CLASSES)]
        self._density = [[(kind + 1) / (age + 1) for age in range(self.AGES)] for kind in range(self.CLASSES)]

    def _age(self, entry: Entry) -> int:
        return min((self._now - self._last[entry]) // self._shift, self.AGES - 1)

    def _tick(self) -> None:
        self._now += 1
        if self._now >= self._next:
            self._next = self._now + max(2_000, len(self._items))
            self._reconfigure()

    def add(self, entry: Entry) -> None:
        self._tick()
        self._place[entry] = len(self._items)
        self._items.append(entry)
        self._last[entry] = self._now
        self._ages[entry] = (self.AGES, 0)
        self._class[entry] = 0

    def hit(self, entry: Entry) -> None:
        self._tick()
        age = self._age(entry)
        self._hits[self._class[entry]][age] += 1
        older = self._ages[entry][0]
        self._ages[entry] = (age, older)
        total = age + older
        # The published classes: by log2 of the maximal age over the sum of the last two.
        kind = 0
        while kind < self.CLASSES - 1 and total < self.AGES:
            total = total * 2 + 1
            kind += 1
        self._class[entry] = kind
        self._last[entry] = self._now

    def _value(self, entry: Entry) -> float:
        density = self._density[self._class[entry]][self._age(entry)] / (entry.size + 1)
        return density if self._cost_blind else density * entry.miss_cost

    def evict(self) -> Entry:
        pick = self._draw.randrange
        count = len(self._items)
        sample = self._items if count <= 64 else [self._items[pick(count)] for _ in range(64)] + self._items[-8:]
        entry = min(sample, key=self._value)
        self._ends[self._class[entry]][self._age(entry)] += 1
        self._forget(entry)
        return entry

    def remove(self, entry: Entry) -> None:
        self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        place, last = self._place.pop(entry), self._items.pop()
        if last is not entry:
            self._items[place] = last
            self._place[last] = place
        del self._last[entry], self._class[entry], self._ages[entry]

    def _reconfigure(self) -> None:
        for kind in range(self.CLASSES):
            hits, ends = self._hits[kind], self._ends[kind]
            gathered_hits = gathered_events = lifetime = 0.0
            for age in range(self.AGES - 1, -1, -1):
                hits[age] *= 0.9
                ends[age] *= 0.9
                gathered_hits += hits[age]
                gathered_events += hits[age] + ends[age]
                lifetime += gathered_events
                if gathered_events > 1e-5:
                    self._density[kind][age] = gathered_hits / lifetime
                else:
                    self._density[kind][age] = 0.0
        # Coarsen so that nearly nothing is older than the oldest age (the simulator adapts the same way).
        events = sum(map(sum, self._hits)) + sum(map(sum, self._ends))
        oldest = sum(h[-1] for h in self._hits) + sum(e[-1] for e in self._ends)
        if events and oldest / events > 0.01:
            self._shift *= 2
            for counts in (*self._hits, *self._ends):
                for age in range(self.AGES // 2):
                    counts[age] = counts[2 * age] + counts[2 * age + 1]
                counts[self.AGES // 2 :] = [0.0] * (self.AGES - self.AGES // 2)
