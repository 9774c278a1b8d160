"""What ZeRO divides over the processes of a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ZeroSettings:
    """``stage`` 0 (nothing is divided) to 3; with ``bfloat16`` the network is held in bfloat16, the optimiser's copy of
    the weights stays float32."""

    stage: int = 2
    bfloat16: bool = False
