"""The command line as a person meets it: real engine, real store, real files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trimesh
from PIL import Image, ImageDraw

from meshkiln.cli import main
from meshkiln.keys import Key
from meshkiln.store.disk import Disk

PROGRAM = [sys.executable, "-c", "from meshkiln.cli import main; main()"]


class Done(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def run(home: Path, *words: str | Path, code: int = 0) -> Done:
    """Run a command in this process: a new one spends most of its time importing what this one has."""
    printed = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(home):
        patch.setenv("MESHKILN_CACHE_DIR", str(home / "cache"))
        patch.setenv("COLUMNS", "160")
        patch.setattr(sys, "argv", ["meshkiln", *map(str, words)])
        patch.setattr(sys, "stdout", printed[0])
        patch.setattr(sys, "stderr", printed[1])
        with pytest.raises(SystemExit) as ended:
            main()
    done = Done(*(_text(stream) for stream in printed))
    assert (ended.value.code or 0) == code, f"exit code {ended.value.code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    raw = stream.detach()
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode()


def run_alone(home: Path, *words: str | Path, code: int = 0) -> Done:
    """Run a command in a process of its own, which finds on the disk what others stored, and ends."""
    environ = {**os.environ, "MESHKILN_CACHE_DIR": str(home / "cache"), "COLUMNS": "160"}
    done = subprocess.run(
        [*PROGRAM, *map(str, words)], cwd=home, env=environ, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return Done(done.stdout, done.stderr)


def picture(path: Path, colour: str = "red") -> Path:
    image = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 12, 76, 84), fill=colour)
    image.save(path)
    return path


def keys(home: Path) -> set[Key]:
    """Of all that is stored."""
    with contextlib.closing(Disk(home / "cache")) as disk:
        return set(disk)


def stages(text: str) -> dict[str, Any]:
    return {stage["stage"]: stage["source"] for stage in json.loads(text)["stages"]}


def test_a_picture_becomes_a_mesh_once(home: Path) -> None:
    ball = picture(home / "ball.png")
    first = run_alone(home, "generate", ball, "--json")
    assert set(stages(first.stdout).values()) == {"computed"}
    again = run_alone(home, "generate", ball, "--json")
    assert stages(again.stdout)["export"] == "disk"
    assert "computed" not in stages(again.stdout).values()
    mesh = trimesh.load(home / "ball.glb", force="mesh")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight
    assert json.loads(first.stdout)["digest"] == json.loads(again.stdout)["digest"]


def test_stl_after_glb_runs_only_what_export_wants(home: Path) -> None:
    run(home, "generate", picture(home / "ball.png"))
    done = run(home, "generate", home / "ball.png", "-o", home / "ball.stl", "--size", "80", "--json")
    assert {name for name, source in stages(done.stdout).items() if source == "computed"} <= {"export", "read", "matte"}
    assert max(trimesh.load(home / "ball.stl").extents) == pytest.approx(80, rel=1e-3)


def test_obj_comes_with_its_material_and_texture(home: Path) -> None:
    picture(home / "my ball.png")
    run(home, "generate", home / "my ball.png", "-o", home / "my ball.obj")
    mesh = trimesh.load(home / "my ball.obj", force="mesh")
    assert mesh.visual.kind == "texture"
    assert mesh.visual.material.image.size[0] > 0
    run(home, "generate", home / "my ball.png", "--format", "obj")
    assert (home / "my ball.obj.zip").read_bytes()[:2] == b"PK"


def test_an_obj_never_overwrites_the_picture_it_is_made_of(home: Path) -> None:
    chair = home / "chair.jpg"
    Image.open(picture(home / "ball.png")).convert("RGB").save(chair)
    before = chair.read_bytes()
    run(home, "generate", chair, "-o", home / "chair.obj")
    assert chair.read_bytes() == before
    assert (home / "chair.texture.jpg").exists()
    assert trimesh.load(home / "chair.obj", force="mesh").visual.material.image.size[0] > 0


@pytest.mark.parametrize("most", ["abc", "0", "1e9"])
def test_a_limit_of_pixels_that_is_none_is_said_in_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    ball = picture(home / "limited.png", f"#12345{len(most)}")
    monkeypatch.setenv("MESHKILN_PICTURE_PIXELS", most)
    (line,) = run(home, "generate", ball, code=2).stderr.splitlines()
    assert "(from MESHKILN_PICTURE_PIXELS) is not a whole number from 1 to 178000000 pixels" in line


def test_odd_names_are_names(home: Path) -> None:
    odd = picture(home / "[red] b[x].png")
    assert "[red] b[x].glb" in run(home, "generate", odd).stdout
    run(home, "generate", odd, home / ("a" * 300), "-o", home / "odd", "--json", code=2)
    assert (home / "odd" / "[red] b[x].glb").exists()


def test_one_bad_picture_does_not_stop_the_rest(home: Path) -> None:
    good, bad = picture(home / "blue.png", "blue"), home / "bad.png"
    bad.write_bytes(b"not a picture")
    done = run_alone(home, "generate", bad, good, home / "none.png", "-o", home / "many", "--json", code=2)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("type") for line in lines] == ["BadPicture", None, "BadPicture"]
    assert sorted(path.name for path in (home / "many").iterdir()) == ["blue.glb"]
    assert len(done.stderr.strip().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "none.png"], "none.png does not exist"),
        (["generate", "."], "folder"),
        (["generate", "empty.png"], "empty"),
        (["generate", "noise.png"], "noise.png"),
        (["generate", "cut.png"], "cut.png"),
        (["generate", "clear.png"], "transparent"),
        (["generate", "ball.png", "-o", "no/such/../x.doc"], "suffix"),
        (["generate", "ball.png", "-o", "/proc/x.glb"], "cannot be written"),
        (["generate", "ball.png", "--format", "doc"], "glb, obj, ply, stl, 3mf"),
        (["generate", "ball.png", "--faces", "-3"], "from 0 to"),
        (["generate", "ball.png", "--faces", "1" + "0" * 400], "from 0 to"),
        (["generate", "ball.png", "-o", "a" * 300 + ".glb"], "cannot be written"),
        (["generate", "same.glb", "-o", "same.glb"], "one of the pictures"),
        (["generate", "ball.png", "-p", "nose=3"], "depth"),
        (["generate", "ball.png", "-p", "depth"], "NAME=VALUE"),
        (["generate", "ball.png", "--engine", "magic"], "inflate"),
        (["generate", "ball.png", "--recipe", "magic"], "recipe"),
        (["generate", "ball.png", "other/ball.png"], "both be written"),
        (["render", "none.glb"], "does not exist"),
        (["cache", "rm", "abc"], "at least 8"),
        (["cache", "rm"], "--picture"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_sentence_exit_code_2_and_nothing_written(
    home: Path, words: list[str], says: str
) -> None:
    picture(home / "ball.png")
    (home / "empty.png").write_bytes(b"")
    (home / "noise.png").write_bytes(bytes(range(256)))
    (home / "cut.png").write_bytes((home / "ball.png").read_bytes()[:200])
    Image.new("RGBA", (32, 32), (9, 9, 9, 0)).save(home / "clear.png")
    (home / "same.glb").write_bytes((home / "ball.png").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if "cache" not in path.parts}
    stored = keys(home)
    done = run(home, *words, code=2)
    sentences = [line for line in done.stderr.splitlines() if line.strip()]
    assert says in done.stderr
    assert len(sentences) == 1, done.stderr
    after = {path: path.stat().st_mtime_ns for path in home.rglob("*") if "cache" not in path.parts}
    assert after == before
    assert keys(home) == stored


IN_THE_MIDDLE = """
import os, signal, sys
from meshkiln.cli import main
from meshkiln.kiln import Kiln

generate, where = Kiln.generate, sys.argv.pop(1)

def interrupted(self, *args, report=None, **named):
    def at(stage, step, steps):
        if stage == where:
            os.kill(os.getpid(), signal.SIGINT)
    return generate(self, *args, report=at, **named)

Kiln.generate = interrupted
main()
"""


@pytest.mark.parametrize("stage", ["read", "inflate", "export"])
def test_an_interruption_is_one_line_exit_code_130_and_leaves_nothing(tmp_path: Path, stage: str) -> None:
    ball = picture(tmp_path / "ball.png")
    command = [sys.executable, "-c", IN_THE_MIDDLE, stage, "generate", str(ball), "-o", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        command,
        env={**os.environ, "MESHKILN_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        # A shell that starts a command in the background has it ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "meshkiln: interrupted\n")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_obj_comes_with_all_its_files_or_not_at_all(home: Path) -> None:
    (home / "whole" / "ball.texture.jpg").mkdir(parents=True)
    done = run(home, "generate", picture(home / "ball.png"), "-o", home / "whole" / "ball.obj", code=2)
    assert "ball.texture.jpg is a folder" in done.stderr
    assert [path.name for path in (home / "whole").iterdir()] == ["ball.texture.jpg"]


@pytest.mark.parametrize("format", ["glb", "obj"])
def test_a_full_disk_is_one_clear_line_and_leaves_no_part_of_a_mesh(home: Path, format: str) -> None:
    ball = picture(home / "ball.png")
    run(home, "generate", ball, "-f", format, "-o", home)
    here = home / f"full-{format}"
    here.mkdir()
    script = 'mount -t tmpfs -o size=64k none "$0" && head -c 61440 /dev/zero > "$0/filler"; "$@"; ls -A "$0"'
    wrap = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*wrap, "mount", "-t", "tmpfs", "none", here], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us mount nothing of our own")
    asked = ["generate", str(ball), "-o", str(here / f"ball.{format}")]
    done = subprocess.run(
        [*wrap, "sh", "-c", script, str(here), *PROGRAM, *asked],
        env={**os.environ, "MESHKILN_CACHE_DIR": str(home / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.stdout == "filler\n"
    (line,) = done.stderr.splitlines()
    assert "cannot be written: No space left on device" in line


def test_explain_says_what_is_stored_and_which_parameter_caused_the_miss(home: Path) -> None:
    ball = picture(home / "explained.png", "teal")
    run(home, "generate", ball)
    rows = {row["stage"]: row for row in json.loads(run(home, "explain", ball, "--json").stdout)}
    assert not any(row["runs"] for row in rows.values())
    rows = {row["stage"]: row for row in json.loads(run(home, "explain", ball, "-p", "depth=2", "--json").stdout)}
    assert rows["inflate"]["runs"]
    assert rows["inflate"]["reason"] == "depth: stored 1.0, asked 2.0"
    assert rows["inflate"]["expected_seconds"] > 0
    rows = {row["stage"]: row for row in json.loads(run(home, "explain", ball, "--format", "stl", "--json").stdout)}
    assert rows["export"]["reason"] == "format: stored glb, asked stl"
    unknown = json.loads(run(home, "explain", picture(home / "new.png", "green"), "--json").stdout)
    assert unknown[1]["key"] is None
    assert "read" in unknown[0]["reason"]
    assert "expected" in run(home, "explain", ball).stdout


def test_explain_expects_of_a_dear_decoder_nothing_that_a_cheap_one_took(home: Path) -> None:
    ball = picture(home / "dear.png", "navy")
    small = ("-e", "vecset", "-p", "steps=1", "-p", "octree_resolution=16")
    run(home, "generate", ball, "-o", home / "dear.glb", *small)
    rows = {r["stage"]: r for r in json.loads(run(home, "explain", ball, *small, "--seed", "1", "--json").stdout)}
    assert rows["decode"]["expected_seconds"] > 0
    dense = (*small, "-p", "decoder=dense")
    rows = {r["stage"]: r for r in json.loads(run(home, "explain", ball, *dense, "--json").stdout)}
    assert rows["decode"]["runs"]
    assert rows["decode"]["expected_seconds"] is None
    assert "1 stage that has never run here with such parameters" in run(home, "explain", ball, *dense).stdout


def test_a_picture_and_all_derived_from_it_can_be_forgotten(home: Path) -> None:
    doomed, kept = picture(home / "doomed.png", "purple"), picture(home / "kept.png", "orange")
    run(home, "generate", doomed, kept, "-o", home / "both")
    assert "removed 0" in run(home, "cache", "rm", "--picture", picture(home / "never.png", "pink")).stdout
    run(home, "cache", "rm", "--picture", doomed)
    assert stages(run(home, "generate", kept, "-o", home / "both", "--json").stdout)["export"] == "disk"
    again = stages(run(home, "generate", doomed, "-o", home / "both", "--json").stdout)
    assert set(again.values()) == {"computed"}


def test_cache_tells_verifies_and_clears(home: Path) -> None:
    run(home, "generate", picture(home / "ball.png"))
    figures = json.loads(run(home, "cache", "stats", "--json").stdout)
    assert figures["stages"]["export"]["entries"] >= 1
    assert "export" in run(home, "cache", "stats").stdout
    lines = [json.loads(line) for line in run(home, "cache", "ls", "--json").stdout.splitlines()]
    assert len(lines) == figures["entries"]
    run(home, "cache", "verify")
    assert "removed 1 artifact" in run(home, "cache", "rm", lines[0]["key"][:16]).stdout
    run(home, "cache", "clear", "--yes")
    assert run(home, "cache", "ls", "--json").stdout == ""


def test_render_draws_what_was_made(home: Path) -> None:
    run(home, "generate", picture(home / "ball.png"))
    run(home, "render", home / "ball.glb", "-o", home / "views.png", "--size", "64", "--views", "front,side")
    with Image.open(home / "views.png") as views:
        assert views.size == (128, 64)
        red, green, blue = views.convert("RGB").getpixel((32, 32))
    assert red > 2 * max(green, blue)
    before = (home / "ball.png").read_bytes()
    run(home, "render", home / "ball.glb", "--size", "16")
    assert (home / "ball-views.png").exists()
    assert (home / "ball.png").read_bytes() == before
    # A pipe of the test's own: were the check gone, a device of the machine's would be replaced.
    os.mkfifo(home / "pipe")
    assert "not a regular file" in run(home, "render", home / "ball.glb", "-o", home / "pipe", code=2).stderr
    assert (home / "pipe").is_fifo()


def test_engines_tells_stages_parameters_and_ranges(home: Path) -> None:
    told = run(home, "engines").stdout
    assert "read → matte → inflate → finish → export" in told
    assert "from 0.02 to 3" in told
    listed = {engine["name"]: engine for engine in json.loads(run(home, "engines", "--json").stdout)}
    assert listed["inflate"]["stages"][0]["name"] == "read"


def test_completion_scripts_are_printed(home: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "meshkiln" in run(home, "completion", shell).stdout


def test_importing_meshkiln_is_light() -> None:
    heavy = ["torch", "onnxruntime", "cv2", "scipy", "skimage", "trimesh", "fastapi", "starlette", "numpy", "PIL"]
    heavy += ["meshkiln.telemetry", "opentelemetry", "prometheus_client"]
    code = f"import meshkiln, sys; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    times = []
    for _ in range(5):
        code = "import time; a = time.perf_counter(); import meshkiln; print(time.perf_counter() - a)"
        times.append(float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout))
    assert min(times) <= 0.150
