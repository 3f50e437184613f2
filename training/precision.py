"""Which numbers the networks are trained in: bfloat16 where the processor multiplies them, else float32.

Without such instructions a bfloat16 matrix product is emulated: 38 × slower than float32's on an AMD EPYC that has AVX2
only (0.8 against 29 GFLOP/s on one core), where with them it is 2.5 × faster.
"""

from __future__ import annotations

from functools import cache

import torch

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2")
"""What x86 processors multiply bfloat16 with. Others train in float32: nobody has measured them."""


@cache
def quick() -> torch.dtype:
    """The quicker of bfloat16 and float32 for matrix products on this processor."""
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(capabilities.get(name) for name in INSTRUCTIONS) else torch.float32


def mixed() -> torch.autocast:
    """A context in which matrix products are `quick` and what needs its digits stays float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=quick() is torch.bfloat16)
