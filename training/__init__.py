"""How the bundled weights are made, end to end. Needs torch (the `train` extra) unless a module says otherwise."""
