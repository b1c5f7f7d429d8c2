"""A result page that opens in a browser without a server or the internet."""

from __future__ import annotations

import html
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from measures.arteries_veins import ON_PAGE, REASONS
from measures.vessels import CONFIDENCE, MEASURES, TRUST, Measure
from pages.pictures import BORDER, FALSE, FOUND, KIND_LEGEND, LANDMARK, MISSED, OUTLINE
from pages.results import RESULT_SUFFIXES, result_file
from pages.viewer import viewer_script
from scoring import metrics
from system.files import atomic

SCALE_FROM = {  # see `prediction.scale.Scale`
    "disc": "the optic disc",
    "vessels": "the calibre of the vessels",
    "field": "the field of view",
    "given": "the diameter that was given",
    "guess": "a guess",
}
LABELS = {
    "f1": "F1",
    "jaccard": "Jaccard",
    "recall": "Recall",
    "precision": "Precision",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "auc": "AUC",
    "average_precision": "Average precision",
    "cldice": "clDice",
    "recall_2px": "Recall, to 2 px",
    "recall_3px": "Recall, to 3 px",
}
KINDS_TRUTH = "page/truth_arteries_veins"
UNSEEN = {"fractal_r2", "box_smallest", "box_largest", "fov_diameter"}  # of the measures, in the table only
SUMMARY = {
    "mean": "Mean of the images",
    "pooled": "All pixels pooled",
    "second_observer": "Second observer, mean",
}


def thin_curves(counts: np.ndarray, points: int = 200) -> dict[str, list[list[float]]] | None:
    """ROC and precision-recall curve, thinned out for the page.

    Args:
        counts: int64 (2, 65536), from `metrics.count_levels`, also summed over images.
        points: maximum number of points of a curve.

    Returns:
        `roc`: pairs of false positive rate and recall; `precision_recall`: pairs of recall and precision.
        None where the truth has only one of the two classes: they are not defined.
    """
    background, vessels = counts.sum(axis=1)
    if not (background and vessels):
        return None
    false_rate, recall = metrics.roc_curve(counts)
    # even steps in both rates follow the curve where it is steep and where it is flat
    steps = np.linspace(0, 1, points // 2)
    keep = np.unique(np.concatenate([np.searchsorted(rate, steps) for rate in (false_rate, recall)]))
    false_rate, recall = false_rate[keep], recall[keep]
    predicted = false_rate * background + recall * vessels
    some = predicted > 0  # precision is undefined where nothing is predicted
    precision = recall[some] * vessels / predicted[some]
    return {
        "roc": np.column_stack([false_rate, recall]).round(5).tolist(),
        "precision_recall": np.column_stack([recall[some], precision]).round(5).tolist(),
    }


def write_report(
    path: Path,
    names: Sequence[str],
    threshold: float,
    notes: Sequence[str],
    rows: Sequence[Mapping[str, Any]] = (),
    counts: np.ndarray | None = None,
    measured: Iterable[Mapping[str, Any]] = (),
    hidden: Sequence[str] = (),
) -> None:
    """Write the page beside the folders `page` and `masks` that hold its pictures.

    If the page's folder or one of the two above holds the `SYNTHETIC.txt` of demo.py, the page says so.

    Args:
        path: of the page, such as results/index.html.
        names: of the images, as given to `write_layers`.
        threshold: probability from which a pixel counts as vessel.
        notes: lines at the top, such as why there are no scores.
        rows: scores as metrics.csv has them: a row for each name in the same order, then those of `SUMMARY`.
            Empty: no table, no curves, and pictures without truth.
        counts: of all pixels pooled, int64 (2, 65536); None: no curves.
        measured: measures as measures.csv has them, a row for each name in the same order; those with a reason
            in `doubtful` stand first. Empty: no measures. The layer of `uncertainty` comes with columns of
            `CONFIDENCE`.
        hidden: folders that were not written, and so give no layer.
    """
    each, total = rows[: len(names)], {row["image"]: row for row in rows[len(names) :]}
    drawn = all((path.parent / result_file(KINDS_TRUTH, name)).is_file() for name in names)
    shown_layers = layers(bool(rows), next(iter(measured), {}), drawn)
    data: dict[str, Any] = {
        "synthetic": any((folder / "SYNTHETIC.txt").is_file() for folder in path.resolve().parents[:3]),
        "notes": [f"A pixel of probability {threshold:.4f} or more is a vessel.", *notes],
        "layers": [layer for layer in shown_layers if layer[1] not in hidden],
    }
    if rows:
        f1 = [row["f1"] for row in each]
        by_label = {name: dict(zip(LABELS, values(row), strict=True)) for name, row in total.items()}
        data |= {
            "columns": list(LABELS.values()),
            "summary": [{"name": SUMMARY[name], "scores": values(row)} for name, row in total.items()],
            "mean": float(np.mean(f1)),
            "interval": metrics.bootstrap_interval(f1) if len(f1) > 1 else None,
            "threshold": f"{threshold:.4f}",
            "pooled": by_label["pooled"],
            "observer": by_label.get("second_observer"),
            "curves": None if counts is None else thin_curves(counts),
        }
    shown: dict[str, Measure] = {}
    if measured:
        shown = shown_measures(measured)
        data["measures"] = [[m.title, m.digits, m.hint, m.trust] for m in shown.values()]
        data["trust"] = TRUST

    def images() -> Iterator[dict[str, Any]]:
        for name, scored, found in itertools.zip_longest(names, each, measured):
            # a file name may hold bytes that are not text: the address keeps them; / leads into a folder
            image = {"name": name, "url": quote(name, errors="surrogateescape")}
            if scored:
                image["scores"] = values(scored)
            if found:
                numbers = (found.get(name, math.nan) for name in shown)
                image["doubtful"] = found.get("doubtful", "")
                image["about"] = about(found)
                image["made"] = found.get("made_by", "")
                image["measures"] = [None if math.isnan(n) else round(n, 6) for n in numbers]
            yield image

    def embedded(value: object) -> str:
        # inside a script only < could end it or begin a comment
        return json.dumps(value, allow_nan=False).replace("<", "\\u003c")

    whole = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    before, after = whole.replace("{{viewer}}", viewer_script()).split("{{data}}")
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as page:
        page.write(f'{before}{embedded(data)[:-1]}, "images": [')
        for number, image in enumerate(images()):  # one at a time: there may be a hundred thousand
            page.write(f"{', ' if number else ''}{embedded(image)}")
        page.write(f"]}}{after}")


def layers(labelled: bool, row: Mapping[str, Any], kinds_labelled: bool) -> list[list[Any]]:
    """The layers of the page: title, folder beside the page, suffix, and its colours with their names, of each.

    The last one is shown first. `labelled`, `kinds_labelled`: all eyes have labels of vessels, of arteries and
    veins; `row`: of a photograph's measures, which tells what else was found.
    """
    landmarks = [["disc and fovea", LANDMARK]] if "disc_x" in row else []
    outlines = [["outline of vessels", OUTLINE], ["outline of the field of view", BORDER], *landmarks]
    differences = [["found", FOUND], ["missed", MISSED], ["false", FALSE]]
    sure = [["sure", (0, 0, 0)], ["as likely vessel as not", (255, 255, 255)]]
    every: list[tuple[str, str, bool, list[Any]]] = [  # title, folder, whether it is there, colours
        ("Photograph", "page/photograph", True, []),
        ("Truth", "page/truth", labelled, []),
        ("Prediction", "masks", True, []),
        ("Uncertainty", "uncertainty", not CONFIDENCE.keys().isdisjoint(row), sure),
        ("Labels of arteries, veins", KINDS_TRUTH, kinds_labelled, KIND_LEGEND[:4]),
        ("Arteries, veins", "page/arteries_veins", "kind_decided" in row, KIND_LEGEND),
        ("Differences", "page/differences", labelled, differences),
        ("Outline", "outlines", not labelled, outlines),
    ]
    return [
        [title, folder, RESULT_SUFFIXES[folder], colours] for title, folder, is_in, colours in every if is_in
    ]


def shown_measures(rows: Iterable[Mapping[str, Any]]) -> dict[str, Measure]:
    """The measures of the page, by their columns of measures.csv, that any of the rows has."""
    present = {name for row in rows for name in row} - UNSEEN
    return {name: how for name, how in (CONFIDENCE | MEASURES | ON_PAGE).items() if name in present}


def describe_photograph(row: dict[str, Any]) -> str:
    """Doubts and measures of a photograph as HTML, for the page of app.py, from its row of measures.csv."""
    doubtful = html.escape(row["doubtful"])
    lines = [f'<p class="doubtful">Look at it with care: {doubtful}.</p>'] if doubtful else []
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Measure", "Value", "What it is", "Trust"))
    lines.append(f'<table class="measures"><thead><tr>{heads}</tr></thead><tbody>')
    for name, how in shown_measures([row]).items():
        value = "–" if math.isnan(row[name]) else f"{row[name]:.{how.digits}f}"
        why = row.get(f"{name}_reason", "")
        hint = html.escape(f"{how.hint}: {why}" if why else how.hint)
        cells = "".join(f"<td>{cell}</td>" for cell in (value, hint, how.trust))
        lines.append(f'<tr><th scope="row">{how.title}</th>{cells}</tr>')
    words = "".join(f"<li><b>{word}</b>: {meaning}</li>" for word, meaning in TRUST.items())
    return "\n".join([*lines, f"</tbody></table><p>How far to trust them:</p><ul>{words}</ul>"])


def about(row: Mapping[str, Any]) -> str:
    """Whose eye it is, of which visit, where its scale is from, and why it has no CRAE, by measures.csv."""
    side = row.get("eye") or row.get("side")
    texts = [row.get("patient"), f"{side} eye" if side else "", row.get("visit"), row.get("camera")]
    texts += [f"looks the same as {row['copy_of']}"] if row.get("copy_of") else []
    texts += [f"scale from {SCALE_FROM[row['scale_from']]}"] if row.get("scale_from") else []
    texts += [f"no {name[:4].upper()}: {row[name]}" for name in REASONS if row.get(name)]
    return ", ".join(str(text) for text in texts if text)


def values(row: Mapping[str, Any]) -> list[float | None]:
    """The scores of a row in the order of LABELS; None where undefined."""
    return [None if math.isnan(row[column]) else round(row[column], 6) for column in LABELS]
