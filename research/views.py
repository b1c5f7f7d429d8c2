"""Score networks on the data set that each has not seen, in one, two, four and eight views, with their time.

    python augment.py DRIVE STARE HRF CHASE_DB1 --leave-one-out
    python -m research.views --files files    # of train.py --leave-one-out

The scale of each photograph is that of predict.py. Seconds are CPU seconds of all threads, of `segment`; each
photograph is seen in every number of views in turn.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from tqdm import tqdm

from prediction.scale import factors_for
from prediction.segmentation import VIEWS, segment
from research.left_out import add_left_out, left_out
from scoring import metrics
from training.thresholds import f1_curve
from utils import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_left_out(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    print(
        f"{'left out':12}{'eyes':>6}" + "".join(f"{t:>10}" for t in ("views", "F1", "best F1", "AP", "CPU s"))
    )
    for data_set, network, eyes in left_out(args):
        counts: dict[int, list[np.ndarray]] = {views: [] for views in VIEWS}
        seconds = dict.fromkeys(VIEWS, 0.0)
        factors = factors_for([eye.image for eye in eyes], network)
        for eye, factor in zip(tqdm(eyes, desc=data_set, disable=None), factors, strict=True):
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
