"""How fast a GPU predicts, how long it waits, and whether its masks are those of a CPU; for research/gpu.sh."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batch.photographs import Predictor, predict_photographs
from batch.results import ResultsFolder
from datasets.images import write_png
from datasets.synthetic import draw_eye
from datasets.tables import Table
from networks.checkpoints import find_weights
from networks.loading import USUAL_VIEWS, USUAL_WEIGHTS, load_networks
from prediction.segmenter import Segmenter
from system.devices import Stopwatch, describe, pick_device
from utils import versions


def main() -> None:
    name, size, number, compared, out = sys.argv[1:]
    device, (width, height) = pick_device(name), map(int, size.split("x"))
    weights = find_weights(USUAL_WEIGHTS)
    model, threshold = load_networks([weights], None, device)
    found: dict[str, Any] = {"device": describe(device), "megapixels": width * height / 1e6, **versions()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = [folder / f"{k}.png" for k in range(int(compared))]
        for k, path in enumerate(paths):
            write_png(path, draw_eye(np.random.default_rng(k), height, width)[0])
        for part in ("masks", "outlines"), ("masks", "probability", "uncertainty", "outlines", "measures"):
            results = ResultsFolder(
                folder / part[-1], [weights], Table(), threshold=threshold, views=USUAL_VIEWS
            )
            predictor = Predictor(model, threshold, USUAL_VIEWS, None, results, part)
            names = {str(k): paths[k % len(paths)] for k in range(int(number))}
            watch, problems = Stopwatch(model), {}
            start = time.perf_counter()
            done = sum(1 for _ in predict_photographs(names, predictor, problems))
            spent, title = time.perf_counter() - start, "all" if len(part) > 2 else "masks and outlines"
            assert done == len(names) and not problems
            found[f"photographs a second, {title}"] = done / spent
            found[f"share of the time that the device waits, {title}"] = max(0.0, 1 - watch.seconds / spent)
        if device.type == "cuda":
            found["peak MiB of the GPU"] = torch.cuda.max_memory_allocated(device) / 2**20
        both = [Segmenter(weights, device=each) for each in (name, "cpu")]
        pairs = [[one(path).mask > 0 for one in both] for path in paths]
        different = [np.mean(a != b) for a, b in pairs]
        found["share of pixels whose mask differs from a CPU's"] = float(max(different))
        found["F1 between the masks, lowest"] = float(
            min(2 * (a & b).sum() / max((a.sum() + b.sum()), 1) for a, b in pairs)
        )
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
