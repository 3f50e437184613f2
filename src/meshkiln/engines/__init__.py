"""Engines: models as fixed lines of stages. `base` says what an engine is; others register by entry point."""
