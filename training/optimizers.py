"""The optimizer and its learning rate over a training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def make_optimizer(model: nn.Module, name: str, rate: float) -> torch.optim.Optimizer:
    """Create "muon" or "adamw" for a network, at this peak learning rate."""
    import torch

    from training.muon import Muon

    if name == "muon":
        return Muon(model, rate)
    fused = next(model.parameters()).device.type != "mps"
    return torch.optim.AdamW(model.parameters(), rate, fused=fused)


def one_cycle(progress: float, peak: float) -> float:
    """Learning rate at `progress` in [0, 1]: up to `peak` in the first 30 %, down to almost 0 (Smith 2018)."""
    start, end, top = peak / 25, peak / 250_000, 0.3
    a, b, t = (start, peak, progress / top) if progress < top else (peak, end, (progress - top) / (1 - top))
    return a + (b - a) * (1 - math.cos(math.pi * t)) / 2
