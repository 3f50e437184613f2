"""Where artifacts live: memory, then disk. The contract is in `base`; one contract test runs against all."""
