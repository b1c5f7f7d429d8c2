"""Losses as functions of logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training import distributed

if TYPE_CHECKING:
    from torch import Tensor


def vessel_loss(logits: Tensor, masks: Tensor, fovs: Tensor, dice: float = 0.0) -> Tensor:
    """Binary cross-entropy of the logits inside the field of view, plus `dice` times the soft Dice loss.

    Of arteries and veins there are two channels, whose cross-entropies are added, and that of the kind: where a
    pixel is of one kind alone, the difference of the logits says which.

    Args:
        logits: (N, 1 or 2, H, W), any float type; computed in float32.
        masks: float32 of the same shape, 1 for vessel (artery, vein), 0 for background.
        fovs: float32 (N, 1, H, W), 1 inside the field of view; other pixels do not count.
        dice: weight of 1 - Dice (Milletari et al. 2016); alone it would spoil the probabilities and the AUC.

    Returns:
        Scalar, 0 or more. With several processes it is the loss of the whole batch.
    """
    import torch
    import torch.nn.functional as F

    logits = logits.float()
    sums = [F.binary_cross_entropy_with_logits(logits, masks, weight=fovs, reduction="sum"), fovs.sum()]
    if has_kinds := masks.shape[1] == 2:
        vein, one_kind = masks[:, 1:], fovs * (masks[:, :1] != masks[:, 1:])
        of_kind = logits[:, 1:] - logits[:, :1]
        sums += [F.binary_cross_entropy_with_logits(of_kind, vein, one_kind, reduction="sum"), one_kind.sum()]
    if dice:
        probability = logits.sigmoid() * fovs
        sums += [(probability * masks).sum(), probability.sum(), (masks * fovs).sum()]
    entropy, pixels, *others = distributed.total(torch.stack(sums))
    loss = entropy / pixels.clamp(min=1)
    if dice:
        *others, both, predicted, true = others
        loss = loss + dice * (1 - (2 * both + 1) / (predicted + true + 1))
    if has_kinds:
        entropy_of_kind, number = others
        loss = loss + entropy_of_kind / number.clamp(min=1)
    return loss
