"""U-Net of Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), plain or with a ResNet-34 encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from datasets.field_of_view import DIAMETER
from utils import UserError, explain


class ConvBlock(nn.Sequential):
    """Twice 3x3 convolution, batch normalisation, ReLU: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            # batch normalisation would subtract a bias again
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class EncoderBlock(nn.Module):
    """(N, C_in, H, W) -> skip (N, C_out, H, W) and its half (N, C_out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvBlock(in_channels, out_channels)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.conv(x)
        return skip, self.pool(skip)


class UpConv(nn.ConvTranspose2d):
    """2x2 transposed convolution of stride 2: (N, C_in, H, W) -> (N, C_out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not self.training or input.device.type != "cpu" or self.bias is None:
            return super().forward(input, output_size)
        # as a matrix product, whose gradient a CPU computes three times as fast: each pixel (C_in) becomes
        # four, (2, 2, C_out)
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        x = F.linear(input.permute(0, 2, 3, 1), weight, self.bias.repeat(4))  # (N, H, W, 4 C_out)
        x = x.unflatten(3, (2, 2, -1)).transpose(2, 3)  # (N, H, 2, W, 2, C_out)
        return x.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class DecoderBlock(nn.Module):
    """(N, C_in, H, W) and skip (N, C_skip, 2H, 2W) -> (N, C_out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.up = UpConv(in_channels, out_channels)
        self.conv = ConvBlock(out_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([self.up(x), skip], dim=1))


def pad(images: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) to multiples of `multiple` by repeating the right and the lower border."""
    height, width = images.shape[-2:]
    if not (height % multiple or width % multiple):
        return images
    # replicate, since reflection cannot pad a single pixel
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


class Network(nn.Module):
    """Base of all networks: images (N, 3, H, W) -> logits (N, outputs, H, W), any H and W from 1 up."""

    config: dict[str, Any]  # arguments that rebuild it, see `NETWORKS`
    grid: int  # pixels: H and W are padded to multiples of it
    margin: int  # pixels, a multiple of `grid`: the receptive field reaches at most this far
    diameter: float = DIAMETER  # pixels of the field of view at which it was trained, of a 45-degree camera
    disc: float | None = None  # pixels per disc diameter at which it was trained; None: by `diameter` alone
    clahe: bool = False  # trained on photographs with even contrast too, `datasets.images.equalize`
    outputs: tuple[str, ...] = ("vessels",)  # what each channel finds, see `networks.checkpoints`
    trained_on: frozenset[str] = frozenset()  # names of the eyes that trained it or chose its epoch
    turn: AbstractContextManager[Any] = nullcontext()  # is held while it predicts, where threads share a device


class UNet(Network):
    """Image (N, in_channels, H, W) -> logits (N, out_channels, H, W), any H and W from 1 up.

    Args:
        in_channels: 3 for RGB.
        out_channels: 1 for vessel probability.
        width: filters of the first level; every level below has twice as many.
        depth: number of times the resolution is halved.

    The defaults give the common U-Net: 64 to 1024 filters, 31.0 million parameters.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.config = {
            "name": "unet",
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
            "depth": depth,
        }
        self.grid = 2**depth
        self.margin = 8 * self.grid  # a pixel sees at most 7 squares each way
        widths = [width * 2**level for level in range(depth + 1)]
        ins = [in_channels, *widths[:-2]]
        self.encoder = nn.ModuleList(EncoderBlock(i, o) for i, o in zip(ins, widths[:-1], strict=True))
        self.bottleneck = ConvBlock(widths[-2], widths[-1])
        self.decoder = nn.ModuleList(DecoderBlock(2 * w, w, w) for w in reversed(widths[:-1]))
        self.classifier = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad(x, self.grid)
        skips = []
        for block in self.encoder:
            skip, x = block(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for block in self.decoder:
            x = block(x, skips.pop())
        return self.classifier(x)[..., :height, :width]


class ResUNet(Network):
    """A U-Net whose encoder is a ResNet-34: image (N, 3, H, W) -> logits (N, 1, H, W), any H and W from 1 up.

    The encoder is torchvision's (He et al. 2015, https://arxiv.org/abs/1512.03385). Its first layer halves the
    image, but vessels are one to three pixels wide, so a block of convolutions keeps the full resolution.

    Args:
        in_channels: 3, for RGB.
        out_channels: 1 for vessel probability.
        width: filters at the full resolution; the decoder has twice as many at each level below.
        depth: number of times the resolution is halved, 1 to 5: so many stages of the ResNet.

    With width 16 and depth 3 it has 1.5 million parameters, and 1.7 times the operations of such a `UNet`.

    Raises:
        ValueError: a ResNet-34 has no such depth or number of channels.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        if in_channels != 3 or not 1 <= depth <= 5:
            raise ValueError("a ResNet-34 sees 3 channels and halves their resolution 1 to 5 times")
        self.config = {
            "name": "resunet",
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
            "depth": depth,
        }
        self.grid = 2**depth
        self.margin = 20 * self.grid  # depth 4 needs the most: a pixel sees 305 pixels each way
        skips = [width, 64, 64, 128, 256, 512][: depth + 1]
        widths = [width * 2**level for level in range(depth)]
        self.full = ConvBlock(in_channels, width)
        self.encoder = resnet_stages(depth)
        ins = [*widths[1:], skips[-1]]
        self.decoder = nn.ModuleList(
            DecoderBlock(i, o, s) for i, o, s in reversed(list(zip(ins, widths, skips[:-1], strict=True)))
        )
        self.classifier = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad(x, self.grid)
        skips = [self.full(x)]
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = skips.pop()
        for block in self.decoder:
            x = block(x, skips.pop())
        return self.classifier(x)[..., :height, :width]

    def load_imagenet(self) -> None:
        """Load torchvision's ImageNet weights into the encoder.

        They expect mean 0 and standard deviation 1 over all of ImageNet; here each image has these inside its
        field of view (`datasets.images.normalize`), which is close enough to start from.

        Raises:
            UserError: the weights are neither cached nor can they be downloaded.
        """
        from torchvision.models import ResNet34_Weights

        weights = ResNet34_Weights.IMAGENET1K_V1
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        try:
            state = weights.get_state_dict(check_hash=True, weights_only=True)
            self.encoder.load_state_dict(resnet_stages(len(self.encoder), state).state_dict())
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            by_hand = f"put {weights.url} into {folder} by hand, or train without --pretrained"
            raise UserError(explain(error, "--pretrained", "no ImageNet weights", by_hand)) from None


def resnet_stages(depth: int, weights: dict[str, Tensor] | None = None) -> nn.ModuleList:
    """The first `depth` stages of a ResNet-34, each of which halves the resolution.

    Returns:
        (N, 3, H, W) -> (N, 64, H/2, W/2) -> (N, 64, H/4, W/4) -> (N, 128, H/8, W/8) and so on.
    """
    from torchvision.models import resnet34  # slow to import, and a UNet does not need it

    resnet = resnet34()
    if weights:
        resnet.load_state_dict(weights)
    stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu)
    first = nn.Sequential(resnet.maxpool, resnet.layer1)
    return nn.ModuleList([stem, first, resnet.layer2, resnet.layer3, resnet.layer4][:depth])


NETWORKS: dict[str, type[UNet | ResUNet]] = {"unet": UNet, "resunet": ResUNet}


class Ensemble(Network):
    """The mean probability of several networks, which may differ in kind, width and depth.

    Like each of them it maps images (N, C, H, W) to logits (N, outputs, H, W), here of the mean probability.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.diameter, self.disc, self.outputs = networks[0].diameter, networks[0].disc, networks[0].outputs
        self.clahe = all(network.clahe for network in networks)
        self.trained_on = frozenset[str]().union(*(network.trained_on for network in networks))
        self.grid = max(network.grid for network in networks)  # powers of 2: a multiple of all others
        self.margin = -(-max(network.margin for network in networks) // self.grid) * self.grid

    def forward(self, x: Tensor) -> Tensor:
        # float32: bfloat16 would round probabilities near 1 to few levels
        return torch.stack([network(x).float().sigmoid() for network in self.networks]).mean(dim=0).logit()


N = TypeVar("N", bound=nn.Module)


def fold_batch_norm(model: N) -> N:
    """Copy a network for prediction, with each batch normalisation folded into the convolution before it.

    It predicts the same up to rounding, and faster. The copy is in evaluation mode and cannot be trained.
    """
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        # all blocks here define their modules in the order of use
        for (name, module), (next_name, next_module) in pairwise(list(parent.named_children())):
            if isinstance(module, nn.Conv2d) and isinstance(next_module, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(module, next_module))
                setattr(parent, next_name, nn.Identity())
    return model
