"""Settings: where they come from, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshkiln.cli.serve import serve, settings
from meshkiln.errors import BadParameter
from meshkiln.settings import Settings, allowed, load, variable

ROOT = Path(__file__).parent.parent


def test_option_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\nworkers = 2\nhost = "0.0.0.0"\ncors_origins = ["http://a"]\n')
    environ = {"MESHKILN_PORT": "3", "MESHKILN_WORKERS": "4", "MESHKILN_HOT_PATH": "off"}
    loaded = load({"port": 5, "engine": None}, environ, file)
    settings, origins = loaded.settings, loaded.origins
    assert (settings.port, settings.workers, settings.host, settings.hot_path) == (5, 4, "0.0.0.0", False)
    assert settings.cors_origins == ("http://a",)
    assert (origins["port"], origins["workers"], origins["host"]) == ("option", "MESHKILN_WORKERS", str(file))
    assert origins["engine"] == "default"


def test_every_setting_can_come_from_the_environment() -> None:
    texts = {bool: "yes", int: "4096", float: "1", str: "x", tuple: "a, b"}
    numbers = {"port": "80", "workers": "3", "worker_bytes": str(2**28)}
    for setting in fields(Settings):
        text = numbers.get(setting.name, texts[type(setting.default)])
        loaded = load(environ={variable(setting.name): text})
        assert loaded.origins[setting.name] == variable(setting.name)
        assert type(getattr(loaded.settings, setting.name)) is type(setting.default)
        assert setting.metadata["help"]


def test_every_setting_can_come_from_the_file(tmp_path: Path) -> None:
    lines = {int: "4096", float: "1.5", str: '"x"', tuple: '["a", "b"]'}
    numbers = {"port": "80", "workers": "3", "worker_bytes": str(2**28), "traces_share": "0.5"}
    for setting in fields(Settings):
        file = tmp_path / f"{setting.name}.toml"
        text = str(not setting.default).lower() if type(setting.default) is bool else lines[type(setting.default)]
        file.write_text(f"{setting.name} = {numbers.get(setting.name, text)}\n")
        loaded = load(environ={}, file=file)
        assert loaded.origins[setting.name] == str(file)
        assert getattr(loaded.settings, setting.name) != setting.default


def test_settings_are_printed_each_with_its_value_and_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("workers = 7\n")
    elsewhere = str(tmp_path / "a folder with a name that is rather long" / "cache")
    environ = {"MESHKILN_SETTINGS": str(file), "MESHKILN_PORT": "8080", "MESHKILN_CACHE_DIR": elsewhere}
    ran = CliRunner().invoke(settings, ["--json"], env=environ)
    told = json.loads(ran.output)
    assert list(told) == [setting.name for setting in fields(Settings)]
    assert told["workers"] == {"value": 7, "from": str(file), "variable": "MESHKILN_WORKERS"}
    assert told["port"] == {"value": 8080, "from": "MESHKILN_PORT", "variable": "MESHKILN_PORT"}
    assert told["engine"]["from"] == "default"
    table = CliRunner().invoke(settings, [], env=environ).output
    for setting in fields(Settings):
        assert setting.name in table
        assert variable(setting.name) in table
    assert f"the file is {file}" in table
    assert re.search(r"^workers +7 +the file", table, re.M)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("port", "70000", "from 0 to 65535"),
        ("port", "8080.5", "whole number"),
        ("port", "true", "whole number"),
        ("picture_pixels", "0", "from 1 to 178000000 pixels"),
        ("hot_path", "maybe", "true or false"),
        ("queue_seconds", "nan", "at least 0"),
        ("wait_seconds", "-1", "from 0 to 3600"),
    ],
)
def test_a_wrong_value_is_refused_naming_setting_origin_and_what_is_right(name: str, text: str, says: str) -> None:
    with pytest.raises(BadParameter, match=says) as refused:
        load(environ={variable(name): text})
    assert name in str(refused.value)
    assert variable(name) in str(refused.value)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("prot = 1", "port"),
        ("port = ", "TOML"),
        ('port = "1"', "whole number"),
        ("host = 1", "string"),
        ("memory = 1", "true"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, toml: str, says: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(toml)
    with pytest.raises(BadParameter, match=says):
        load(environ={"MESHKILN_SETTINGS": str(file)})


def test_a_settings_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="not a file"):
        load(environ={"MESHKILN_SETTINGS": str(tmp_path / "none.toml")})


def test_defaults_are_allowed_by_their_own_rules() -> None:
    defaults = Settings()
    assert load({f.name: getattr(defaults, f.name) for f in fields(Settings)}, environ={}).settings == defaults
    assert all(allowed(f.name) for f in fields(Settings))


# docs/settings.md.


def row(name: str, readers: str) -> str:
    """The line of a setting in the document's table."""
    setting = next(f for f in fields(Settings) if f.name == name)
    flags = {parameter.name: parameter.opts[-1] for parameter in serve.params}
    flag = f"`{flags[name]}`" if name in flags else ""
    right = allowed(name).removesuffix(" (in the environment: separated by commas)")
    default = json.dumps(setting.default)
    return (
        f"| `{name}` | {flag} | `{variable(name)}` | `{default}` | {right} | {setting.metadata['help']} | {readers} |"
    )


def documented() -> dict[str, tuple[str, str]]:
    """Of each variable that has a row: the row, and who reads it."""
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    found = {
        re.findall(r"`(MESHKILN_\w+)`", line)[0]: (line, line.split(" | ")[-1].removesuffix(" |")) for line in rows
    }
    assert len(found) == len(rows), "a variable has two rows"
    return found


def test_the_document_has_every_setting_as_it_is_in_the_code() -> None:
    told = documented()
    for setting in fields(Settings):
        line, readers = told.get(variable(setting.name), ("", "the server"))
        assert line == row(setting.name, readers)


def test_the_document_has_every_variable_that_is_read_and_no_other() -> None:
    literal = re.compile(r"(?<![A-Z_])MESHKILN_[A-Z]+(?:_[A-Z]+)*")
    named = {path: set(literal.findall(path.read_text())) for path in (ROOT / "src").rglob("*.py")}
    told, of_settings = documented(), {variable(f.name) for f in fields(Settings)}
    assert set(told) == of_settings | set[str]().union(*named.values())
    # What a module reads past the settings is not for the server alone, and the document says so.
    elsewhere = {name for path, names in named.items() if path.name != "settings.py" for name in names}
    assert {name for name, (_, readers) in told.items() if readers != "the server"} >= elsewhere


def test_the_file_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes('currency = "€"'.encode())
    # Else Python takes UTF-8 by itself in the C locale, as it would not in a Latin one.
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "MESHKILN_SETTINGS": str(file)}
    code = "from meshkiln.settings import load; print(ascii(load().settings.currency))"
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, **plain}, capture_output=True, text=True)
    assert ran.stdout.strip() == ascii("€"), ran.stderr
