"""A page on this computer: drop photographs, see their vessels, move the threshold, take the results."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import Eye
from datasets.images import write_png
from prediction.networks import parse_prediction_args
from prediction.segmenter import Segmentation, Segmenter
from scoring.report import as_rgb, compare, overlay
from system.files import write_csv
from utils import HelpFormatter, UserError, run

if TYPE_CHECKING:
    import gradio

ADDRESS = "127.0.0.1"  # this computer alone
MOST_FILES = 20  # photographs in one drop
MOST_BYTES = 50 * 2**20  # of one photograph
WAITING = 20  # drops in the queue; one is segmented at a time
VIEWS = ("Outline", "Probability", "Difference from the usual threshold")
LEGEND = {
    VIEWS[0]: "Vessels outlined in blue, the field of view in orange.",
    VIEWS[1]: "The brighter, the more probably a vessel.",
    VIEWS[
        2
    ]: "White: vessel at both thresholds. Blue: only at this one. Orange: only at the usual one, {:.2f}.",
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Open a page on this computer only: drop photographs, see their vessels, move the "
        "threshold, download masks, probabilities and a table.",
        epilog="example: python app.py --no-tta",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--weights", type=Path, nargs="+", help="checkpoints (default: that of predict.py)")
    parser.add_argument("--port", type=int, default=7860, help="of the page's address")
    parser.add_argument("--browser", action=argparse.BooleanOptionalAction, default=True, help="open a browser")
    return parse_prediction_args(parser)


def segment_all(
    files: Sequence[str], segmenter: Segmenter, progress: Any
) -> tuple[dict[str, Segmentation], list[str]]:
    """Segment dropped files; also return a line for each refused one, and why."""
    found: dict[str, Segmentation] = {}
    refused = [f"{Path(file).name}: more than {MOST_FILES} at once" for file in files[MOST_FILES:]]
    for file in progress.tqdm(files[:MOST_FILES], desc="predict", unit="photograph"):
        path = Path(file)
        name, number = path.name, 1
        while name in found:
            number += 1
            name = f"{path.stem}_{number}{path.suffix}"
        try:
            found[name] = segmenter(path)
        except UserError as error:
            refused.append(str(error).replace(file, path.name))
    return found, refused


def view(result: Segmentation, threshold: float, usual: float, kind: str) -> np.ndarray:
    """The picture of one photograph, uint8 (H, W, 3) RGB; `kind` is one of VIEWS."""
    result.threshold = threshold
    if kind == VIEWS[1]:
        return as_rgb((result.levels >> 8).astype(np.uint8))
    mask = result.mask
    if kind == VIEWS[0]:
        return overlay(result.photograph, mask, result.fov)
    result.threshold = usual
    return compare(Eye("", result.photograph, result.fov, result.mask), mask)


def table(results: dict[str, Segmentation], threshold: float) -> list[dict[str, Any]]:
    """A row for each photograph, at one threshold."""
    rows = []
    for name, result in results.items():
        result.threshold = threshold
        height, width = result.fov.shape
        share = float((result.mask > 0).sum() / max((result.fov > 0).sum(), 1))
        rows.append(
            {
                "photograph": name,
                "width": width,
                "height": height,
                "threshold": threshold,
                "vessel_share": share,
            }
        )
    return rows


def write_downloads(
    folder: Path, name: str, results: dict[str, Segmentation], threshold: float
) -> tuple[str, str, str]:
    """Write mask and probability of one photograph and the table of all; returns the paths."""
    result = results[name]
    result.threshold = threshold
    own = Path(tempfile.mkdtemp(dir=folder))
    mask, probability = (own / f"{Path(name).stem}_{part}.png" for part in ("mask", "probability"))
    write_png(mask, result.mask)
    write_png(probability, result.levels)
    write_csv(own / "vessels.csv", table(results, threshold))
    return str(mask), str(probability), str(own / "vessels.csv")


def build(gr: Any, segmenter: Segmenter, folder: Path) -> gradio.Blocks:
    """The page. What was dropped stays in the memory of this process until the page is closed, or an hour."""
    usual, watched = segmenter.threshold, gr.Progress()

    def drop(files: list[str] | None, progress: Any = watched) -> list[Any]:
        found, refused = segment_all(files or [], segmenter, progress)
        lines = "\n".join(f"- {line}" for line in refused)
        report = f"**{len(refused)} refused**\n\n{lines}" if refused else ""
        choice = gr.update(choices=list(found), value=next(iter(found), None), visible=len(found) > 1)
        return [found, gr.update(value=report, visible=bool(refused)), choice, gr.update(visible=bool(found))]

    def show(found: dict[str, Segmentation], name: str | None, threshold: float, kind: str) -> list[Any]:
        if name not in found:
            return [None, "", *[gr.update(value=None)] * 3]
        result = found[name]
        picture = view(result, threshold, usual, kind)
        guess = ""
        if result.fov.all():
            guess = " No border of the field of view is visible, so its diameter is a guess."
        (row,) = table({name: result}, threshold)
        text = f"{name}: {row['vessel_share']:.1%} of the field of view is vessel. {LEGEND[kind].format(usual)}"
        return [picture, text + guess, *write_downloads(folder, name, found, threshold)]

    with gr.Blocks(title="Retinal vessels", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        results = gr.State({}, time_to_live=3600)
        gr.Markdown(
            "# Retinal vessels\n"
            "Photographs stay on this computer. Research software, not a medical device: do not base a "
            "diagnosis on it."
        )
        files = gr.File(
            label=f"Drop photographs here (up to {MOST_FILES}, {MOST_BYTES >> 20} MB each)",
            file_count="multiple",
            elem_id="files",
        )
        refused = gr.Markdown(visible=False, elem_id="refused")
        with gr.Column(visible=False, elem_id="found") as shown:
            name = gr.Dropdown(label="Photograph", choices=[], visible=False, elem_id="name")
            kind = gr.Radio(VIEWS, value=VIEWS[0], label="Show", elem_id="view")
            threshold = gr.Slider(
                0.01, 0.99, value=round(usual, 2), step=0.01, label="Threshold", elem_id="threshold"
            )
            text = gr.Markdown(elem_id="text")
            picture = gr.Image(label="Result", interactive=False, format="png", elem_id="picture", buttons=[])
            with gr.Row():
                downloads = [
                    gr.DownloadButton(label, elem_id=part)
                    for label, part in (
                        ("Mask", "mask"),
                        ("Probability, 16 bit", "probability"),
                        ("Table", "csv"),
                    )
                ]
        redraw = {
            "fn": show,
            "inputs": [results, name, threshold, kind],
            "outputs": [picture, text, *downloads],
        }
        gr.on(
            [files.upload, files.clear],
            drop,
            [files],
            [results, refused, name, shown],
            concurrency_limit=1,
        ).then(**redraw)
        gr.on([threshold.release, name.input, kind.input], **redraw, show_progress="hidden")
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def main() -> int:
    args = parse_args()
    # before the import: Gradio asks its makers' server for news otherwise
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio as gr
    except ImportError as error:
        missing = f"{error.name} is not installed"
        raise UserError(f"{missing}; install it with: pip install -r requirements-app.txt") from None
    segmenter = Segmenter(args.weights, args.threshold, args.tta, args.device)
    with tempfile.TemporaryDirectory(prefix="vessels-") as folder:
        try:
            build(gr, segmenter, Path(folder)).launch(
                server_name=ADDRESS,
                server_port=args.port,
                share=False,
                inbrowser=args.browser,
                max_file_size=MOST_BYTES,
                ssr_mode=False,
                footer_links=[],
                # fonts of the computer: the usual theme would fetch them
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            )
        except OSError:
            raise UserError(f"--port {args.port}: another program uses it; give another port") from None
    return 0


if __name__ == "__main__":
    run(main)
