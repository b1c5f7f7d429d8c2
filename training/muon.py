"""Muon: gradient descent with orthogonalised steps (Jordan et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Muon for the inner convolutions of a network, AdamW for all other parameters.

    The momentum of a convolution, as a matrix (C_out, C_in * k * k), is dominated by a few directions that most
    examples share. Muon replaces it by the nearest orthogonal matrix, so that what few examples show, such as
    thin vessels, is learned as fast as the rest. The first and last convolution, the upsampling, and vectors do
    not gain from it. torch's own Muon does not accept convolutions.

    Source: https://kellerjordan.github.io/posts/muon; AdamW: https://arxiv.org/abs/1711.05101.

    Args:
        model: Muon updates its 3x3 convolutions between hidden layers.
        lr: learning rate of Muon; that of AdamW is `ADAMW` times as high. To change it later, set a group's
            `lr` to the new rate times its `factor`.
        momentum: of Muon.
        weight_decay: of AdamW; before batch normalisation the length of a matrix has no effect.
    """

    ADAMW = 0.25

    def __init__(self, model: nn.Module, lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        hidden = [c.weight for c in convolutions if c.kernel_size != (1, 1) and c.in_channels > 3]
        ids = {id(weight) for weight in hidden}
        others = [p for p in model.parameters() if id(p) not in ids]
        groups = [
            {"params": hidden, "factor": 1.0, "momentum": momentum},
            {"params": others, "factor": self.ADAMW, "momentum": None},
        ]
        super().__init__([g for g in groups if g["params"]], {"lr": lr, "weight_decay": weight_decay})
        for group in self.param_groups:
            group["lr"] *= group["factor"]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step. `closure` is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure: compute the gradients before the step")
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["momentum"] is None:
                gradients = [weight.grad for weight in weights if weight.grad is not None]
                self.adamw(weights, gradients, [self.state[weight] for weight in weights], group)
                continue
            for weight in weights:
                self.muon(weight, weight.grad, self.state[weight], group)

    @staticmethod
    def muon(weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Update one convolution."""
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
        direction = gradient.add(momentum, alpha=group["momentum"])  # Nesterov's
        direction = orthogonalize(direction.flatten(1)).view_as(weight)
        # without it tall matrices would move less than wide ones
        length = max(1, weight.shape[0] / weight[0].numel()) ** 0.5
        weight.add_(direction, alpha=-group["lr"] * length)

    @staticmethod
    def adamw(
        weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]
    ) -> None:
        """Update all other parameters, with betas 0.9 and 0.999.

        Each operation is one for all of them: a GPU computes these small vectors faster than it is told to.
        """
        if not weights:
            return
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
            state["step"] += 1
        steps = states[0]["step"].item()
        averages, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(averages, gradients, 1 - 0.9)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - 0.999)
        spreads = torch._foreach_div(squares, 1 - 0.999**steps)
        torch._foreach_sqrt_(spreads)
        torch._foreach_add_(spreads, 1e-8)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(weights, averages, spreads, value=-group["lr"] / (1 - 0.9**steps))


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix (M, N) to between 0.7 and 1.2 and keep its singular vectors.

    Five Newton-Schulz steps with the coefficients of Jordan et al. 2024, which favour speed over exactness.
    Each step multiplies by a polynomial of the Gram matrix X Xᵀ, so only this small square matrix is iterated
    on, and the long one is multiplied twice instead of ten times.
    """
    x = matrix.float()
    x = x / (x.norm() + 1e-7)  # all singular values at most 1
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    gram, product = x @ x.T, None
    one = torch.eye(len(gram), device=gram.device)
    for _ in range(5):
        factor = 3.4445 * one - 4.7750 * gram + 2.0315 * gram @ gram
        product = factor if product is None else factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return (x.T if tall else x).to(matrix.dtype)
