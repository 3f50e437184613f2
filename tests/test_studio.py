"""The studio's files as they are served: complete, small, closed to the outside, and built from what is in web/."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from meshkiln.gateway import studio
from serving import serving

ROOT = Path(__file__).parent.parent
BUILT = ROOT / "src" / "meshkiln" / "studio"
LARGEST = 400_000
"""Bytes of a page and all it loads before there is a mesh to be seen, compressed."""


def test_the_page_is_built_from_its_source() -> None:
    web = ROOT / "web"
    names = [
        "build.mjs",
        "package.json",
        "package-lock.json",
        *(f"src/{path.name}" for path in (web / "src").iterdir()),
    ]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\n".encode() + (web / name).read_bytes() + b"\n")
    assert (BUILT / "built-from").read_text().strip() == digest.hexdigest(), "run `make studio` and commit what it made"


def test_a_page_without_the_viewer_is_under_400_kilobytes() -> None:
    for page in studio.PAGES.values():
        loaded = _loaded(page)
        assert "style.css" in loaded
        assert "viewer.js" not in loaded
        assert sum(len(gzip.compress((BUILT / name).read_bytes(), 9)) for name in loaded) < LARGEST


def _loaded(page: str) -> set[str]:
    """The files that a page loads at once: those it names, and those that scripts import statically."""
    found, waiting = {page}, [page]
    while waiting:
        text = (BUILT / waiting.pop()).read_text()
        for name in re.findall(r'"/studio/([\w.-]+)"', text) + re.findall(r'(?:from|import)\s*"\./([\w.-]+)"', text):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def test_pages_and_their_files_are_served_under_a_strict_policy(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        for path, page in studio.PAGES.items():
            answer = http.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            for name in _loaded(page) - {page}:
                part = http.get(f"/studio/{name}", headers={"accept-encoding": "gzip"})
                assert part.content == (BUILT / name).read_bytes()
                assert part.headers["content-encoding"] == "gzip"
                again = http.get(
                    f"/studio/{name}", headers={"accept-encoding": "gzip", "if-none-match": part.headers["etag"]}
                )
                assert again.status_code == 304
        plain = http.get("/studio/style.css", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == (BUILT / "style.css").read_bytes()
        several = [("if-none-match", plain.headers["etag"]), ("if-none-match", '"another"')]
        for lines in (several, several[::-1]):
            assert http.get("/studio/style.css", headers=[*lines, ("accept-encoding", "identity")]).status_code == 304
        for name in ("index.html", "built-from", "%2e%2e%2fkiln.py", "kiln.py"):
            assert http.get(f"/studio/{name}").status_code == 404


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, gzip;q=0.8", True),
        ("br;q=0, gzip", True),
        ("gzip;q=0.001", True),
        ("gzip;q=0", False),
        ("deflate, gzip ; Q=0.000, br", False),
        ("identity;q=0.5", False),
        ("", False),
    ],
)
def test_gzip_is_for_who_does_not_refuse_it(accepted: str, packed: bool) -> None:
    assert studio.unpacks(accepted) is packed


def test_the_api_is_described_without_a_script_or_another_server(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        answer = http.get("/docs")
        described = http.get("/openapi.json").json()
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == studio.POLICY
    assert "<script" not in answer.text
    assert set(re.findall(r'(?:src|href)="([^"]*)"', answer.text)) <= {
        "/",
        "/operations",
        "/docs",
        "/openapi.json",
        "/studio/icon.svg",
        "/studio/style.css",
    }
    for path, operations in described["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in answer.text


def test_no_file_names_another_server() -> None:
    for path in BUILT.iterdir():
        text = path.read_text()
        # What is left are names of namespaces and notes on sources, which nothing fetches.
        for url in set(re.findall(r"(?:https?:)?//[\w-]+(?:\.[\w-]+)+", text)):
            assert not re.search(rf'(?:src|href|fetch|import|url)\s*[=(]\s*["\']?{re.escape(url)}', text), (path, url)
