"""A kiln whose stages run in worker processes: the same answers, and a process that serves and never computes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pictures
import toy
from meshkiln.engines.base import Stage
from meshkiln.engines.picture import MATTE, READ
from meshkiln.errors import BadPicture
from meshkiln.kiln import Kiln
from meshkiln.store.memory import Memory
from meshkiln.workers.here import run_here
from meshkiln.workers.processes import Pool
from meshkiln.workers.task import Payload, Task
from stages import BYTES, Patient


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as made:
        yield made


def test_workers_make_what_this_process_makes(pool: Pool) -> None:
    here = Kiln(toy.ENGINE, Memory())
    there = Kiln(toy.ENGINE, Memory(), runner=pool.run)
    for picture in (b"cat", b"a longer dog"):
        assert there.generate(picture, steps=7).data == here.generate(picture, steps=7).data


def test_many_at_once_are_each_made_once(pool: Pool) -> None:
    kiln = Kiln(toy.ENGINE, Memory(), runner=pool.run)
    asked = [b"%d" % (n % 10) for n in range(60)]
    with ThreadPoolExecutor(60) as callers:
        results = list(callers.map(kiln.generate, asked))
    assert len({(picture, result.data) for picture, result in zip(asked, results, strict=True)}) == 10
    ran = Counter(
        stage.stage for result in results for stage in result.stages if stage.source == "computed" and not stage.joined
    )
    assert ran == {"read": 10, "smooth": 10, "grow": 10, "export": 10}


def test_progress_comes_from_the_worker(pool: Pool) -> None:
    heard: list[tuple[str, int, int]] = []
    kiln = Kiln(toy.ENGINE, Memory(), runner=pool.run)
    kiln.generate(b"cat", steps=9, report=lambda *step: heard.append(step))
    assert ("grow", 9, 9) in heard


def test_a_bad_picture_is_a_bad_picture(pool: Pool) -> None:
    kiln = Kiln("inflate", Memory(), runner=pool.run)
    with pytest.raises(BadPicture):
        kiln.generate(b"this is no picture")
    assert pool.stats().restarts == {}


def test_the_process_that_serves_decodes_nothing_and_runs_nothing(tmp_path: Path) -> None:
    """Generates from a real picture file and looks at what this made the process import."""
    picture = tmp_path / "disc.png"
    picture.write_bytes(pictures.file(disc(64, 24, alpha=True)))
    program = f"""
import sys
from meshkiln.kiln import Kiln
from meshkiln.store.memory import Memory
from meshkiln.workers.processes import Pool
with Pool(1) as pool:
    made = Kiln("inflate", Memory(), runner=pool.run).generate({str(picture)!r})
assert made.data[:4] == b"glTF", made.data[:20]
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    loaded = set(ran.stdout.split())
    assert "meshkiln" in loaded
    assert not loaded & {"PIL", "numpy", "cv2", "scipy", "skimage", "trimesh", "onnxruntime", "safetensors"}


@pytest.mark.parametrize("of", [READ, MATTE], ids=lambda stage: stage.name)
def test_a_real_stage_gives_the_same_in_a_batch_as_alone(pool: Pool, of: Stage) -> None:
    stage = replace(of, batch=4)
    files = [pictures.file(disc(48 + 4 * n, 15 + n, alpha=n % 2 == 0)) for n in range(12)]
    read = [_task(READ, Payload(file, BYTES)) for file in files]
    tasks = read if of is READ else [_task(stage, run_here(task).output) for task in read]
    tasks = [replace(task, stage=stage) for task in tasks]
    before = pool.stats().batches
    futures = [pool.submit(task) for task in tasks]
    made = [future.result().output.data for future in futures]
    assert made == [run_here(task).output.data for task in tasks]
    larger = {size for size, count in pool.stats().batches.items() if size > 1 and count > before.get(size, 0)}
    assert larger, "nothing was batched: the test has shown nothing"


def disc(size: int, radius: int, alpha: bool) -> pictures.Pixels:
    """A disc of many colours in the middle of a picture, cut out or on plain white."""
    inside = np.hypot(*(np.mgrid[:size, :size] - size / 2)) < radius
    drawn = pictures.gradient(size, size, alpha=True)
    drawn[..., 3] = 255 * inside
    return drawn if alpha else np.where(inside[..., None], drawn[..., :3] // 2, 255).astype(np.uint8)


def _task(stage: Stage, payload: Payload) -> Task:
    parameters = {"matte": "auto"} if stage.parameters else {}
    given = Payload(payload.data, payload.media_type)
    return Task(stage, (given,), parameters, Patient(), lambda step, steps: None)
