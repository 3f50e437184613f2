"""docs/api.md is true: its commands are run in order against a real server, and cover every route there is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import pictures
from meshkiln.engines.inflate import ENGINE
from serving import serving

TEXT = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(.*?)(?=^```|\Z)", re.M | re.S)
CURL = """#!/bin/sh
# curl as the reader has it, that also leaves its arguments and the answer's status.
n=$(ls "$SEEN" | wc -l)
printf '%s\\n' "$@" > "$SEEN/$(printf %04d "$n").asked"
exec {curl} --silent --show-error --dump-header "$SEEN/$(printf %04d "$n").answered" "$@"
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands are curl's")
def test_every_command_does_what_is_said_under_it_and_every_route_has_one(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "seen").mkdir()
    curl = tmp_path / "bin" / "curl"
    curl.write_text(CURL.replace("{curl}", str(shutil.which("curl"))))
    curl.chmod(0o755)
    (tmp_path / "chair.png").write_bytes(
        pictures.file(pictures.painted(pictures.mug(), (180, 60, 40), (240, 240, 240)))
    )
    with serving(tmp_path / "server", {"inflate": ENGINE}, engine="inflate") as http:
        here = str(http.base_url).rstrip("/")
        said: list[list[set[str]]] = []
        script = [f"set -eu; cd '{tmp_path}'; export PATH='{tmp_path}/bin':$PATH SEEN='{tmp_path}/seen'"]
        for command, words in BLOCK.findall(TEXT):
            script.append(command.replace("http://127.0.0.1:8081", here))
            script.append("echo; echo '-- next'")
            said.append(_statuses(words))
        run = subprocess.run(["bash", "-c", "\n".join(script)], capture_output=True, text=True, timeout=110)
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
        routes = http.get("/openapi.json").json()["paths"]

    expected = [statuses for block in said for statuses in block]
    asked = sorted((tmp_path / "seen").glob("*.asked"))
    assert len(asked) == len(expected), "each command's status is told"
    called = set()
    for file, statuses in zip(asked, expected, strict=True):
        arguments = file.read_text().splitlines()
        status = file.with_suffix(".answered").read_text().split("HTTP/1.1 ")[-1].split()[0]
        assert status in statuses, (arguments, status)
        url = next(argument for argument in arguments if argument.startswith(here))
        called.add((_method(arguments), url.removeprefix(here).partition("?")[0]))
    for path, methods in routes.items():
        pattern = re.sub(r"\{\w+\}", "[^/]+", path)
        for method in methods:
            assert any(m == method.upper() and re.fullmatch(pattern, p) for m, p in called), (
                f"docs/api.md shows no {method.upper()} {path}"
            )
    assert (tmp_path / "chair.glb").read_bytes().startswith(b"glTF")
    assert (tmp_path / "chair.stl").stat().st_size > 1000


def _statuses(words: str) -> list[set[str]]:
    """What is told under a block: "Answers `200` `404`" by command; what may also come follows in words."""
    answers = re.search(r"^Answers ((?:`\d{3}`\s?)+)([^.]*)", words, re.M)
    if answers is None:
        return []
    told = [{status} for status in re.findall(r"\d{3}", answers[1])]
    told[-1] |= set(re.findall(r"`(\d{3})`", answers[2])) if "else" in answers[2] or "when" in answers[2] else set()
    return told


def _method(arguments: list[str]) -> str:
    if "-X" in arguments:
        return arguments[arguments.index("-X") + 1]
    if "-I" in arguments:
        return "HEAD"
    return "POST" if {"-F", "--data", "--data-binary"} & set(arguments) else "GET"
