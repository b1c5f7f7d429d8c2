"""Write the network as one ONNX file, for programs without PyTorch and in other languages."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from datasets.images import normalize, statistics
from networks.checkpoints import VESSELS, find_weights, load_checkpoint
from networks.loading import USUAL_WEIGHTS, add_weights, load_networks
from system.devices import pick_device
from system.files import atomic
from utils import PROGRAM, HelpFormatter, UserError, not_installed, path_name, run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model import Network

OPSET = 18  # of ONNX; ONNX Runtime reads it from version 1.14 on
TOLERANCE = 1e-4  # probabilities may differ by so much from torch's
SIZES = ((96, 104), (97, 101), (333, 250))  # height and width to check: even, odd, mixed


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write the network as one ONNX file: photograph and field of view of any size -> "
        "probability of vessel, or of artery and of vein, normalisation inside. Checks it against torch "
        "with ONNX Runtime.",
        epilog="example: python export.py --weights files/checkpoint.pth --out unet.onnx",
        formatter_class=HelpFormatter,
    )
    add_weights(parser, "that of predict.py")
    parser.add_argument(
        "--out", type=path_name, help="file to write (default: files/NAME.onnx, as the checkpoint)"
    )
    return parser.parse_args()


def whole(network: Network) -> nn.Module:
    """Wrap a network: photograph (H, W, 3) and field of view (H, W), uint8 -> probabilities, float32 (H, W)."""
    import torch
    from torch import nn

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, photograph: Tensor, fov: Tensor) -> tuple[Tensor, ...]:
            height, width = fov.shape
            inside = (fov > 0).double()[..., None]
            # as datasets.images.statistics: in float64, since sums of millions of pixels lose digits
            count = inside.sum().clamp(min=1)
            image = photograph.double()
            mean = (image * inside).sum(dim=(0, 1)) / count
            std = (((image - mean) ** 2 * inside).sum(dim=(0, 1)) / count).sqrt().clamp(min=1)
            image = ((image - mean) / std * inside).float()
            # pad as model.pad, which a traced graph would do for the traced size only
            grid = self.network.grid
            rows = torch.arange((height + grid - 1) // grid * grid).clamp(max=height - 1)
            columns = torch.arange((width + grid - 1) // grid * grid).clamp(max=width - 1)
            image = image[rows][:, columns].permute(2, 0, 1)[None]
            probability = self.network(image).sigmoid()[0, :, :height, :width] * inside[..., 0].float()
            return probability.unbind()

    return Whole().eval()


def names_of_outputs(network: Network) -> list[str]:
    """What the outputs of the ONNX file are called."""
    return ["probability"] if network.outputs == VESSELS else list(network.outputs)


def export(network: Network, metadata: dict[str, str]) -> bytes:
    """The network as an ONNX file with these metadata.

    The inputs are `photograph`, uint8 (height, width, 3) RGB, and `fov`, uint8 (height, width), non-zero
    inside; the output is `probability`, or `artery` and `vein`, float32 (height, width) in [0, 1], 0 outside.
    """
    import onnx
    import torch

    size = 8 * network.grid
    example = (torch.zeros(size, size, 3, dtype=torch.uint8), torch.ones(size, size, dtype=torch.uint8))
    axes, outputs = {0: "height", 1: "width"}, names_of_outputs(network)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        traced = Path(folder, "traced.onnx")
        warnings.simplefilter("ignore")  # of tracing: every size is checked afterwards
        torch.onnx.export(
            whole(network),
            example,
            traced,
            input_names=["photograph", "fov"],
            output_names=outputs,
            dynamic_axes=dict.fromkeys(("photograph", "fov", *outputs), axes),
            opset_version=OPSET,
            dynamo=False,  # tracing takes seconds and needs no further package; the newer way takes a minute
        )
        graph = onnx.load(traced)
    graph.producer_name = PROGRAM
    graph.doc_string = f"Probability of {' and of '.join(network.outputs)} in a fundus photograph"
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph, full_check=True)
    return graph.SerializeToString()


def check(content: bytes, network: Network) -> float:
    """The largest difference of ONNX Runtime's probabilities from torch's, on synthetic eyes of all SIZES."""
    import onnxruntime
    import torch

    from datasets.synthetic import draw_eye
    from prediction.segmentation import predict

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    largest = 0.0
    for seed, (height, width) in enumerate(SIZES):
        photograph, _, fov = draw_eye(np.random.default_rng(seed), height, width)
        found = np.stack(session.run(names_of_outputs(network), {"photograph": photograph, "fov": fov}))
        image = torch.from_numpy(normalize(photograph, fov, *statistics(photograph, fov)))[None]
        with torch.inference_mode():
            wanted = predict(network, image).numpy().reshape(-1, *fov.shape) * (fov > 0)
        if found.shape != wanted.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(largest, float(np.abs(found - wanted).max()))
    return largest


def main() -> int:
    args = parse_args()
    if args.out and args.out.suffix.lower() != ".onnx":  # else a slip would replace another file
        raise UserError(f"--out {args.out}: name a file that ends in .onnx")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise not_installed(error, "requirements-export.txt") from None
    weights = args.weights or [find_weights(USUAL_WEIGHTS)]
    device = pick_device("cpu")
    finds = load_checkpoint(weights[0], device, None)[0].outputs
    network, threshold = load_networks(weights, None, device, finds)
    metadata = {
        "outputs": " ".join(names_of_outputs(network)),
        "threshold": f"{threshold:.6f}",
        "diameter": f"{network.diameter:g}",
        "disc": f"{network.disc or 0:g}",
        "clahe": str(int(network.clahe)),
        "weights": weights[0].name,
    }
    content = export(network, metadata)
    difference = check(content, network)
    if not difference <= TOLERANCE:
        raise UserError(f"the ONNX file differs from torch by {difference:.2g}: not written")
    out = args.out or Path("files", weights[0].with_suffix(".onnx").name)
    with atomic(out) as temporary:
        temporary.write_bytes(content)
    sizes = ", ".join(f"{width}x{height}" for height, width in SIZES)
    about = ", ".join(f"{key} {value}" for key, value in metadata.items())
    print(f"{out}: {len(content) / 2**20:.1f} MiB, opset {OPSET}, {about}")
    print(f"ONNX Runtime gives torch's probabilities to {difference:.1g}, at {sizes} pixels")
    return 0


if __name__ == "__main__":
    run(main)
