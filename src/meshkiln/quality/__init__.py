"""How good a mesh is: `metrics` against a reference."""
