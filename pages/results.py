"""Where results lie: every file and folder that test.py and predict.py write, by name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from datasets.images import refuse_among_images
from utils import UserError

PAGE, MEASURES_TABLE, SCORES_TABLE = "index.html", "measures.csv", "metrics.csv"
KINDS_TABLE = "arteries_veins.csv"  # scores of arteries and veins
COMPARISON, CHALLENGE, MANIFEST = "comparison.csv", "drive_challenge.zip", "predict.json"
# folders, and the suffix of each photograph's file there
RESULT_SUFFIXES = {
    "masks": ".png",
    "probability": ".png",  # 16 bit
    "uncertainty": ".png",
    "outlines": ".jpg",
    "arteries": ".png",
    "veins": ".png",
    "probability_arteries": ".png",  # 8 bit
    "probability_veins": ".png",
    "page/arteries_veins": ".jpg",
    "page/photograph": ".jpg",
    "page/thumbnail": ".jpg",
    "page/truth": ".png",
    "page/truth_arteries_veins": ".png",
    "page/differences": ".png",
}
# what of a photograph predict.py is asked to write, and the folders where it is
PARTS: dict[str, tuple[str, ...]] = {
    "masks": ("masks",),
    "probability": ("probability",),
    "uncertainty": ("uncertainty",),
    "outlines": ("outlines", "page/photograph", "page/thumbnail"),
    "arteries_veins": (
        *("arteries", "veins", "probability_arteries", "probability_veins"),
        "page/arteries_veins",
    ),
    "measures": (),
}
OF_LABELS = ("page/truth", "page/truth_arteries_veins", "page/differences")
WITHOUT_LABELS = tuple(folder for folder in RESULT_SUFFIXES if folder not in OF_LABELS)


def result_file(folder: str, name: str) -> str:
    """The file of a photograph in one of the folders of the results, by its path in the results."""
    return f"{folder}/{name}{RESULT_SUFFIXES[folder]}"


def left_out(parts: Collection[str]) -> list[str]:
    """The folders of the `PARTS` that are not among these."""
    return [folder for part, folders in PARTS.items() if part not in parts for folder in folders]


def check_results(results: Path, data: Path) -> None:
    """Raise UserError if the results would lie among the eyes that are read."""
    place, whole = results.resolve(), data.resolve()
    if place == whole or any(place.is_relative_to(whole / part) for part in ("train", "test")):
        raise UserError(f"--results {results}: lies in {data}; choose another folder")
    refuse_among_images("--results", results)
