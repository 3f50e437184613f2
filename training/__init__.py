"""How the bundled weights are made, end to end. Needs torch (the `train` extra) except where a module says otherwise."""
