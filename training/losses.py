"""Losses as functions of logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training import distributed

if TYPE_CHECKING:
    from torch import Tensor


def vessel_loss(logits: Tensor, masks: Tensor, fovs: Tensor, dice: float = 0.0) -> Tensor:
    """Binary cross-entropy of the logits inside the field of view, plus `dice` times the soft Dice loss.

    Args:
        logits: (N, 1, H, W), any float type; computed in float32.
        masks: float32 (N, 1, H, W), 1 for vessel, 0 for background.
        fovs: float32 (N, 1, H, W), 1 inside the field of view; other pixels do not count.
        dice: weight of 1 - Dice (Milletari et al. 2016); alone it would spoil the probabilities and the AUC.

    Returns:
        Scalar, 0 or more. With several processes it is the loss of the whole batch.
    """
    import torch
    import torch.nn.functional as F

    logits = logits.float()
    sums = [F.binary_cross_entropy_with_logits(logits, masks, weight=fovs, reduction="sum"), fovs.sum()]
    if dice:
        probability = logits.sigmoid() * fovs
        sums += [(probability * masks).sum(), probability.sum(), (masks * fovs).sum()]
    entropy, pixels, *of_dice = distributed.total(torch.stack(sums))
    loss = entropy / pixels.clamp(min=1)
    if dice:
        both, predicted, true = of_dice
        loss = loss + dice * (1 - (2 * both + 1) / (predicted + true + 1))
    return loss
