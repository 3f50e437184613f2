"""Meshkiln: image-to-3D generation that never makes the same thing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Artifact", "Kiln", "MeshkilnError", "Result", "__version__"]

if TYPE_CHECKING:
    from meshkiln.errors import MeshkilnError
    from meshkiln.kiln import Kiln, Result
    from meshkiln.store.base import Artifact

_HOMES = {
    "Kiln": "meshkiln.kiln",
    "Result": "meshkiln.kiln",
    "Artifact": "meshkiln.store.base",
    "MeshkilnError": "meshkiln.errors",
}


def __getattr__(name: str) -> Any:
    # Names load when first used, so that `import meshkiln` stays light (a test holds it under 150 ms).
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'meshkiln' has no attribute {name!r}")
