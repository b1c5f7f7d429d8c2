"""Time predict.py on large photographs against its network alone, in turn; and its peak memory.

    python -m research.prediction_speed             # eight views
    python -m research.prediction_speed --views 1   # one view
    python -m research.prediction_speed --cpu       # CPU seconds, where other programs run as well
    python -m research.prediction_speed --shares    # CPU seconds of each part of the work, on one thread
    python -m research.prediction_speed --shares PHOTOGRAPH ...  # of one's own
    python -m research.prediction_speed --float32   # as on processors without bfloat16

The photographs are drawn, 6 to 15 megapixels, and one of 20 for the memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch

from anatomy.photograph import look_at
from batch import photographs
from batch.photographs import Predictor, predict_photographs
from batch.results import ResultsFolder
from datasets.eyes import Eye, rescale
from datasets.images import read_image
from datasets.synthetic import draw_eye
from datasets.tables import Table
from networks.checkpoints import find_weights
from networks.loading import KINDS_WEIGHTS, USUAL_WEIGHTS, load_kinds, load_networks
from pages.pictures import write_jpeg
from prediction import segmentation, segmenter
from prediction.scale import plan_scale
from prediction.segmentation import segment
from system import devices
from system.devices import describe, pick_device

ROOT = Path(__file__).resolve().parent.parent

SIZES = [(2300, 2600), (2000, 3008), (2560, 2560), (3000, 3000), (2848, 4288), (3456, 4320)]
LARGE = (4000, 5000)


def draw(folder: Path, sizes: list[tuple[int, int]]) -> list[Path]:
    """Write synthetic photographs of these heights and widths."""
    paths = []
    for number, (height, width) in enumerate(sizes):
        # drawn small, since drawing takes its time, and enlarged with the grain of a sensor
        rng = np.random.default_rng(number)
        photograph, _, _ = draw_eye(rng, height // 2, width // 2)
        photograph = cv2.resize(photograph, (width, height), interpolation=cv2.INTER_CUBIC)
        grain = cv2.GaussianBlur(rng.normal(0, 6, photograph.shape).astype(np.float32), (0, 0), 0.7)
        grain *= (photograph.max(axis=2) > 12)[..., None]
        noisy = np.clip(photograph + grain, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number}_{width}x{height}.jpg")
        write_jpeg(paths[-1], noisy)
    return paths


def shares(paths: list[Path], predictor: Predictor) -> None:
    """Print the CPU seconds that each part of the work takes, without those of the parts inside it."""
    spent: dict[str, float] = defaultdict(float)
    inside = [0.0]

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            inside.append(0.0)
            result = function(*arguments, **named)
            took = time.process_time() - start
            spent[part] += took - inside.pop()
            inside[-1] += took
            return result

        return measured

    parts: dict[str, list[tuple[Any, str]]] = {
        "decoding": [(photographs, "read_image")],
        "field of view, disc, scale": [(photographs, "look_at"), (segmenter, "plan_scale")],
        "network": [(segmentation, "predict_views")],
        "resampling, normalising": [(segmenter, "segment"), (segmenter.metrics, "quantize")],
        "masks and outlines": [(segmenter, "binarize"), (photographs, "overlay"), (photographs, "uncertainty")],
        "PNG": [(photographs, "write_png")],
        "JPEG and thumbnails": [(photographs, "write_layers")],
        "measures and doubts": [(segmenter, name) for name in ("measure", "confidence", "features")],
        "arteries and veins": [(segmenter, "find_kinds"), (segmenter, "measure_kinds")],
        "pictures of these": [(photographs, "write_kinds")],
    }
    with ExitStack() as stack:
        for part, functions in parts.items():
            for module, name in functions:
                stack.enter_context(mock.patch.object(module, name, timed(part, getattr(module, name))))
        for run in range(2):  # the first warms up
            spent.clear()
            start = time.process_time()
            for path in paths[: None if run else 1]:
                photographs.predict_photograph(path, path.stem, predictor)
            total = time.process_time() - start
    spent["the rest"] = total - sum(spent.values())
    for part, seconds in sorted(spent.items(), key=lambda one: -one[1]):
        print(f"  {part:24} {seconds / len(paths):6.2f} s {seconds / total:6.1%}")


def peak_memory(path: Path, out: Path, view: str, float32: bool) -> float:
    """Peak memory in MiB of predict.py on one photograph; Linux only."""
    # VmHWM begins at 0 with the program; ru_maxrss would begin with the memory of this process
    code = "from system import devices; devices.has_bfloat16 = lambda _: False\n" if float32 else ""
    code += (
        "import re, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    command = [sys.executable, "-c", code, "predict.py", str(path), "--out", str(out), view]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, choices=(1, 2, 4, 8), default=8, help="flips and turns, averaged")
    parser.add_argument("--weights", type=Path, help="a checkpoint (default: that of predict.py)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--each", type=int, default=2, help="photographs of each size")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of all threads instead of seconds")
    parser.add_argument("--shares", nargs="*", type=Path, help="only the parts of the work, on one thread")
    parser.add_argument("--arteries-veins", action="store_true", help="with --shares: tell them apart too")
    parser.add_argument("--float32", action="store_true", help="switch bfloat16 off")
    args = parser.parse_args()
    if args.float32:
        devices.has_bfloat16 = lambda _: False
    clock = time.process_time if args.cpu else time.perf_counter
    device = pick_device()
    model, threshold = load_networks([args.weights or find_weights(USUAL_WEIGHTS)], None, device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = ResultsFolder(folder / "out", [], Table(), threshold=threshold, views=args.views)
        if args.shares is not None:
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
            sizes = [SIZES[0], *SIZES[-2:]]
            print(f"{describe(device)}, views: {args.views}, CPU seconds a photograph")
            kinds = load_kinds(find_weights(KINDS_WEIGHTS) if args.arteries_veins else None, device)
            predictor = Predictor(model, threshold, args.views, None, results, kinds=kinds)
            return shares(args.shares or draw(folder / "photographs", sizes), predictor)
        paths = draw(folder / "photographs", SIZES) * args.each
        names = {str(number): path for number, path in enumerate(paths)}
        copies = []
        for path in paths:
            photograph = read_image(path)
            taken = look_at(photograph)
            factor = plan_scale(taken, model).factor
            copies.append(rescale(Eye(path.stem, photograph, taken.fov), factor))
        predictor = Predictor(model, threshold, args.views, None, results)
        alone, whole = [], []
        for _ in range(args.repeats):
            start = clock()
            for copy in copies:
                segment(model, copy.image, copy.fov, args.views)
            alone.append((clock() - start) / len(paths))
            start = clock()
            for _ in predict_photographs(names, predictor, {}):
                pass
            whole.append((clock() - start) / len(paths))
        ratio = statistics.median(b / a for a, b in zip(alone, whole, strict=True))
        pixels = np.mean([h * w for h, w in SIZES]) / 1e6
        print(f"{describe(device)}, views: {args.views}, {len(paths)} photographs")
        print(f"of {pixels:.1f} megapixels on average, {args.repeats} times in turn, medians:")
        seconds = statistics.median(alone), statistics.median(whole)
        print("network alone {:.2f} s, whole {:.2f} s a photograph; ratio {:.2f}".format(*seconds, ratio))
        if args.cpu:
            print("(CPU seconds of all threads)")
        (large,) = draw(folder / "large", [LARGE])
        memory = peak_memory(large, folder / "large_out", f"--views={args.views}", args.float32)
        print(
            f"peak memory with one photograph of {LARGE[0] * LARGE[1] / 1e6:.0f} megapixels: {memory:.0f} MiB"
        )


if __name__ == "__main__":
    main()
