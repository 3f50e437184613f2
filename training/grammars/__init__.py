"""The kinds of shapes the model is trained on, and the two kinds it never sees. NumPy only."""

from __future__ import annotations

from training.grammars.creatures import CREATURES
from training.grammars.household import HOUSEHOLD, lamp
from training.grammars.machines import MACHINES, rocket

GRAMMARS = {**CREATURES, **HOUSEHOLD, **MACHINES}
"""name → (grammar, weight)."""

HELD_OUT = {"lamp": (lamp, 1.0), "rocket": (rocket, 1.0)}
"""Only the test generator draws from these."""
