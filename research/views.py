"""Score networks on the data set that each has not seen, in one, two, four and eight views, with their time.

    python augment.py DRIVE STARE HRF CHASE_DB1 --leave-one-out
    python -m research.views --files files    # of train.py --leave-one-out

The scale of each photograph is that of predict.py. Seconds are CPU seconds of all threads, of `segment`; each
photograph is seen in every number of views in turn.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import read_sets
from model import fold_batch_norm
from networks.checkpoints import load_checkpoint
from prediction.scale import factor_for
from prediction.segmentation import VIEWS, segment
from scoring import metrics
from system.devices import pick_device
from training.thresholds import f1_curve, native_eyes
from utils import path_name, run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data_sets", nargs="*", help="that were left out (default: all)")
    parser.add_argument("--data", type=path_name, default=Path("new_data"), help="written with --leave-one-out")
    parser.add_argument("--files", type=path_name, default=Path("files"), help="of train.py --leave-one-out")
    parser.add_argument("--every", type=int, default=1, help="score every N-th eye")
    parser.add_argument("--threshold", type=float, default=0.38, help="probability that makes a vessel")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    sets: dict[str, list[str]] = {}
    for name, data_set in read_sets(args.data).items():
        sets.setdefault(data_set, []).append(name)
    print(
        f"{'left out':12}{'eyes':>6}" + "".join(f"{t:>10}" for t in ("views", "F1", "best F1", "AP", "CPU s"))
    )
    for data_set in args.data_sets or sets:
        network, _ = load_checkpoint(args.files / f"without_{data_set}" / "checkpoint.pth", pick_device("cpu"))
        network = fold_batch_norm(network)
        eyes = list(native_eyes(args.data, sorted(sets[data_set])[:: args.every]))
        counts: dict[int, list[np.ndarray]] = {views: [] for views in VIEWS}
        seconds = dict.fromkeys(VIEWS, 0.0)
        for eye in tqdm(eyes, desc=data_set, disable=None):
            factor = factor_for(eye.image, network)
            for views in VIEWS:
                start = time.process_time()
                probability = segment(network, eye.image, eye.fov, views, factor)
                seconds[views] += (time.process_time() - start) / len(eyes)
                counts[views].append(metrics.count_levels(metrics.quantize(probability), eye.truth, eye.fov))
        for views, own in counts.items():
            scores = metrics.mean([metrics.scores(each, args.threshold) for each in own])
            best = np.mean([f1_curve(each) for each in own], axis=0).max()
            figures = (scores["f1"], best, scores["average_precision"], seconds[views])
            print(f"{data_set:12}{len(eyes):6}{views:10}" + "".join(f"{f:10.4f}" for f in figures), flush=True)


if __name__ == "__main__":
    run(main)
