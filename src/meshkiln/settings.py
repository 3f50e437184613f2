"""Settings: each has a default, an environment variable and a TOML key, is checked, and can say where it came from.

The order of precedence: command-line option, environment variable `MESHKILN_<NAME>`, the settings file, the default.
The file is TOML with the names below as keys; it is the one `MESHKILN_SETTINGS` names, else `settings.toml` in the
user's configuration folder, if there is one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from meshkiln.errors import BadParameter

Origin = str
"""Where a value came from: "default", "option", an environment variable's name, or a file's path."""


def _setting(default: Any, help: str, low: float | None = None, high: float | None = None, unit: str = "") -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high, "unit": unit})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, checked. Sizes in bytes, times in seconds."""

    host: str = _setting("127.0.0.1", "address to listen on; anything but loopback is reachable by others")
    port: int = _setting(8081, "port to listen on; 0 takes a free one", 0, 65535)
    engine: str = _setting("inflate", "engine that serves requests which name none")
    recipe: str = _setting("fast", "recipe of requests which name none, for engines that have it")
    execution_provider: str = _setting(
        "cpu", "where the learned engine's graphs run: cpu; or cuda, tensorrt, openvino, coreml (not yet run)"
    )
    workers: int = _setting(0, "worker processes; 0 is one per core", 0, 256)
    upstreams: tuple[str, ...] = _setting((), "servers that engine `upstream` sends to, as URLs")
    upstream_model: str = _setting("", "name of the model the upstreams serve; part of every key")
    upstream_concurrency: int = _setting(1, "pictures each upstream is asked for at one time", 1)
    upstream_polling: bool = _setting(False, "ask upstreams by /send and /status instead of /generate")

    cache_dir: str = _setting("", "folder of the disk store; empty is the user's cache folder")
    data_dir: str = _setting("", "folder of accepted jobs; empty is the user's data folder")
    memory_bytes: int = _setting(512 * 2**20, "bound of the memory store", 0, unit="bytes")
    memory_entries: int = _setting(100_000, "bound of the memory store in artifacts", 0)
    disk_bytes: int = _setting(10 * 2**30, "bound of the disk store", 0, unit="bytes")

    body_bytes: int = _setting(20 * 10**6, "largest request body", 1024, unit="bytes")
    picture_pixels: int = _setting(64_000_000, "largest picture", 1, 178_000_000, unit="pixels")
    limits: tuple[str, ...] = _setting(
        (), "the most that parameters may be, such as steps=20; in place of the engines'"
    )
    upload_bytes: int = _setting(256 * 2**20, "bodies received and not yet on disk, together", 1024, unit="bytes")
    queue_seconds: float = _setting(600.0, "work that may wait before new requests are refused", 0.0, unit="seconds")
    queue_generations: int = _setting(2000, "distinct generations that may wait", 1)
    wait_seconds: float = _setting(
        60.0, "longest time a request may ask to wait for its answer", 0.0, 3600.0, "seconds"
    )
    retention_seconds: float = _setting(86400.0, "how long a finished job's result is kept", 0.0, unit="seconds")
    shutdown_seconds: float = _setting(30.0, "time to finish what runs when told to stop", 0.0, 3600.0, "seconds")
    stage_seconds: float = _setting(300.0, "time after which a stage counts as hung", 0.1, unit="seconds")
    worker_bytes: int = _setting(4 * 2**30, "memory a worker may take", 2**27, unit="bytes")
    batch_seconds: float = _setting(0.02, "longest wait for a batch to fill", 0.0, 10.0, "seconds")

    allowed_hosts: tuple[str, ...] = _setting((), "host names served besides loopback and the listening address")
    cors_origins: tuple[str, ...] = _setting((), "origins whose pages may call; none by default")

    telemetry: bool = _setting(True, "switch: count requests, and keep a day's history of the counts")
    traces_endpoint: str = _setting("", "collector that traces are sent to (OTLP over HTTP); empty makes none")
    traces_share: float = _setting(1.0, "of the traces that begin here, how many are kept", 0.0, 1.0)
    log_json: bool = _setting(False, "switch: log lines are JSON objects")
    log_requests: bool = _setting(False, "switch: a log line for each request; GETs of artifacts get slower by it")
    gpu_hour_price: float = _setting(2.0, "what an hour of computing costs, for what saved seconds are worth", 0.0)
    currency: str = _setting("$", "what that price is in")

    memory: bool = _setting(True, "switch: keep artifacts in memory")
    disk: bool = _setting(True, "switch: keep artifacts on disk")
    single_flight: bool = _setting(True, "switch: one computation per key however many ask")
    batching: bool = _setting(True, "switch: run several items of a stage at once")
    hot_path: bool = _setting(True, "switch: stored answers bypass the web framework")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each came from."""

    settings: Settings
    origins: Mapping[str, Origin]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"MESHKILN_{name.upper()}"


def load(
    options: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Loaded:
    """Settings from options, environment and file, each value checked.

    options : values given on the command line; None means not given
    file : the settings file; None finds it as the module says
    Raises BadParameter, naming the setting, its origin and what would be right.
    """
    environ = os.environ if environ is None else environ
    origins: dict[str, Origin] = {}
    values: dict[str, object] = {}
    known = {f.name: f for f in fields(Settings)}

    path = file or _file(environ)
    if path is not None:
        for name, value in _toml(path).items():
            if name not in known:
                raise BadParameter(f"{path}: {name!r} is not a setting; there are {', '.join(sorted(known))}")
            values[name], origins[name] = _checked(name, value, str(path)), str(path)
    for name, setting in known.items():
        value = from_variable(name, environ, setting.default)
        if value is not None:
            values[name], origins[name] = value, variable(name)
    for name, value in (options or {}).items():
        if value is not None:
            values[name], origins[name] = _checked(name, value, "option"), "option"
    settings = Settings(**cast("dict[str, Any]", values))
    return Loaded(settings, {name: origins.get(name, "default") for name in known})


def from_variable(name: str, environ: Mapping[str, str], default: object) -> object:
    """What a setting's variable says, as a value of `default`'s type; None where it is not set. Raises BadParameter."""
    text = environ.get(variable(name))
    return None if text is None else _checked(name, _parsed(text, default), variable(name))


def allowed(name: str) -> str:
    """What would be right for a setting, in words."""
    setting = next(f for f in fields(Settings) if f.name == name)
    default, low, high = setting.default, setting.metadata["low"], setting.metadata["high"]
    unit = f" {setting.metadata['unit']}" if setting.metadata["unit"] else ""
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, tuple):
        return "a list of strings (in the environment: separated by commas)"
    if isinstance(default, str):
        return "a string"
    # In digits that can be typed back: a whole number is not told as 1.78e+08.
    noun, digits = ("a whole number", "d") if isinstance(default, int) else ("a number", "g")
    if low is not None and high is not None:
        return f"{noun} from {low:{digits}} to {high:{digits}}{unit}"
    return f"{noun} of at least {low:{digits}}{unit}"


def _file(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("MESHKILN_SETTINGS")
    if named:
        if not Path(named).is_file():
            raise BadParameter(f"MESHKILN_SETTINGS names {named}, which is not a file")
        return Path(named)
    from platformdirs import user_config_path

    path = user_config_path("meshkiln") / "settings.toml"
    return path if path.is_file() else None


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadParameter(f"{path} is not readable TOML: {error}") from None


def _parsed(text: str, default: object) -> object:
    """A value from the environment, which holds only text."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        if isinstance(default, bool):
            return words[text.strip().lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (KeyError, ValueError):
        return text  # _checked says what would be right
    if isinstance(default, tuple):
        return [item.strip() for item in text.split(",") if item.strip()]
    return text


def _checked(name: str, value: object, origin: Origin) -> object:
    setting = next(f for f in fields(Settings) if f.name == name)
    default = setting.default
    wrong = BadParameter(f"{name}={value!r} (from {origin}) is not {allowed(name)}")
    if isinstance(default, bool) or isinstance(value, bool):
        if not (isinstance(default, bool) and isinstance(value, bool)):
            raise wrong
        return value
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise wrong
        return tuple(value)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise wrong
        return value
    if isinstance(default, int) and not isinstance(value, int):
        raise wrong
    if not isinstance(value, int | float):
        raise wrong
    low, high = setting.metadata["low"], setting.metadata["high"]
    # Written so that NaN fails too.
    if not ((low is None or value >= low) and (high is None or value <= high)):
        raise wrong
    return float(value) if isinstance(default, float) else value
