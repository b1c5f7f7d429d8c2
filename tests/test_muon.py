"""Muon orthogonalises the convolutions' steps, and is AdamW for the rest."""

from __future__ import annotations

import copy

import pytest
import torch

from model import UNet
from training.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (32, 32), (1, 9)])
def test_orthogonalized_matrices_keep_their_directions_and_have_singular_values_near_1(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(1, 0.05, min(shape))
    result = orthogonalize(1e-3 * u @ torch.diag(values) @ v)
    found = torch.diagonal(u.T @ result @ v.T)
    assert ((found > 0.6) & (found < 1.3)).all()
    assert torch.allclose(u @ torch.diag(found) @ v, result, atol=1e-4)


@pytest.mark.parametrize("decay", [0, 1, 3])
def test_iterating_on_the_small_square_gives_what_the_published_steps_give(decay):
    torch.manual_seed(0)
    left, right = torch.linalg.qr(torch.randn(64, 64))[0], torch.linalg.qr(torch.randn(576, 64))[0]
    matrix = left * torch.arange(1, 65) ** -float(decay) @ right.T
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    assert (orthogonalize(matrix) - x).norm() < 2e-3 * x.norm()


def gradients(model: torch.nn.Module, seed: int) -> None:
    """Give every parameter a random gradient."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


def test_hidden_convolutions_are_orthogonalized_and_the_rest_is_adamw():
    torch.manual_seed(1)
    model = UNet(width=4, depth=2)
    reference = copy.deepcopy(model)
    ours, adamw = Muon(model, lr=0.02), torch.optim.AdamW(reference.parameters(), lr=0.005)
    before = copy.deepcopy(model.state_dict())
    for seed in range(3):
        for network, optimizer in ((model, ours), (reference, adamw)):
            gradients(network, seed)
            optimizer.step()
    hidden = {n for n, p in model.named_parameters() if any(p is q for q in ours.param_groups[0]["params"])}
    # nine blocks' convolutions of 3x3, but not the one that sees the photograph
    assert len(hidden) == 9
    assert all(name.endswith((".0.weight", ".3.weight")) for name in hidden)
    assert "encoder.0.conv.0.weight" not in hidden
    for name, weight in model.named_parameters():
        assert not torch.equal(weight, before[name])
        assert torch.allclose(weight, reference.get_parameter(name), atol=1e-6) == (name not in hidden)


def test_a_step_is_that_of_torchs_own_muon_for_matrices():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this version of torch has no Muon of its own")
    for out_channels, in_channels in ((8, 4), (64, 4)):
        torch.manual_seed(2)
        model = torch.nn.Conv2d(in_channels, out_channels, 3, bias=False)
        matrix = torch.nn.Parameter(model.weight.detach().flatten(1).clone())
        ours = Muon(model, lr=0.02)
        theirs = torch.optim.Muon([matrix], lr=0.02, weight_decay=0)
        start = matrix.detach().clone()
        for seed in range(4):
            gradients(model, seed)
            matrix.grad = model.weight.grad.flatten(1).clone()
            ours.step()
            theirs.step()
        moved, expected = model.weight.detach().flatten(1) - start, matrix.detach() - start
        # torch computes it in bfloat16
        assert (moved - expected).norm() < 0.05 * expected.norm()


def test_a_learning_rate_of_the_schedule_reaches_both_groups():
    optimizer = Muon(UNet(width=4, depth=1), lr=0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.005]
    assert [group["factor"] for group in optimizer.param_groups] == [1, 0.25]


def test_its_state_survives_saving():
    torch.manual_seed(3)
    models = [UNet(width=4, depth=1)]
    models.append(copy.deepcopy(models[0]))
    first, second = (Muon(model, lr=0.02) for model in models)
    gradients(models[0], 0)
    first.step()
    models[1].load_state_dict(models[0].state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for model, optimizer in zip(models, (first, second), strict=True):
        gradients(model, 1)
        optimizer.step()
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)
