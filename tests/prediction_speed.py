"""Time predict.py on large photographs against its network alone, in turn; and its peak memory.

    python tests/prediction_speed.py             # eight views
    python tests/prediction_speed.py --no-tta    # one view

The photographs are drawn, 6 to 15 megapixels, and one of 20 for the memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from anywhere

from data import Eye, rescale  # noqa: E402
from datasets.field_of_view import drive_scale, estimate_fov  # noqa: E402
from datasets.images import read_image  # noqa: E402
from datasets.synthetic import draw_eye  # noqa: E402
from prediction.networks import load_networks  # noqa: E402
from prediction.photographs import Outcome, Predictor, predict_photographs  # noqa: E402
from prediction.segmentation import segment  # noqa: E402
from scoring.report import write_jpeg  # noqa: E402
from system.devices import describe, pick_device  # noqa: E402

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


def peak_memory(path: Path, out: Path, view: str) -> float:
    """Peak memory in MiB of predict.py on one photograph; Linux only."""
    # VmHWM begins at 0 with the program; ru_maxrss would begin with the memory of this process
    code = (
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
    parser.add_argument("--tta", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--each", type=int, default=2, help="photographs of each size")
    args = parser.parse_args()
    device = pick_device()
    model, threshold = load_networks([ROOT / "files" / "drive_unet.pth"], None, device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = draw(folder / "photographs", SIZES) * args.each
        names = {str(number): path for number, path in enumerate(paths)}
        copies = []
        for path in paths:
            photograph = read_image(path)
            fov = estimate_fov(photograph)
            copies.append(rescale(Eye(path.stem, photograph, fov), drive_scale(fov)))
        predictor = Predictor(model, threshold, args.tta, None, folder / "out")
        alone, whole = [], []
        for _ in range(args.repeats):
            start = time.perf_counter()
            for copy in copies:
                segment(model, copy.image, copy.fov, args.tta)
            alone.append((time.perf_counter() - start) / len(paths))
            start = time.perf_counter()
            for _ in predict_photographs(names, predictor, Outcome(lambda *_: None)):
                pass
            whole.append((time.perf_counter() - start) / len(paths))
        ratio = statistics.median(b / a for a, b in zip(alone, whole, strict=True))
        pixels = np.mean([h * w for h, w in SIZES]) / 1e6
        print(f"{describe(device)}, {'eight views' if args.tta else 'one view'}, {len(paths)} photographs")
        print(f"of {pixels:.1f} megapixels on average, {args.repeats} times in turn, medians:")
        seconds = statistics.median(alone), statistics.median(whole)
        print("network alone {:.2f} s, whole {:.2f} s a photograph; ratio {:.2f}".format(*seconds, ratio))
        (large,) = draw(folder / "large", [LARGE])
        memory = peak_memory(large, folder / "large_out", "--tta" if args.tta else "--no-tta")
        print(
            f"peak memory with one photograph of {LARGE[0] * LARGE[1] / 1e6:.0f} megapixels: {memory:.0f} MiB"
        )


if __name__ == "__main__":
    main()
