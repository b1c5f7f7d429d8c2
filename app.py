"""A page on this computer to drop photographs of the retina on: vessels, measures, files to download."""

from __future__ import annotations

import argparse
import html
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from batch.folders import name_results
from datasets.eyes import Eye
from datasets.images import write_png
from measures.table import write_measures
from measures.vessels import CONFIDENCE, MEASURES
from networks.loading import add_prediction_flags, add_weights
from pages.pictures import as_rgb, compare, overlay
from pages.report import UNSEEN
from prediction.segmentation import binarize
from prediction.segmenter import Segmentation, Segmenter
from system.signals import Stop
from utils import HelpFormatter, UserError, run

if TYPE_CHECKING:
    import gradio

MOST_PHOTOGRAPHS = 20  # of one drop
MOST_PIXELS = 100_000_000  # of one drop: they stay in memory, six bytes a pixel
LARGEST_FILE = 100_000_000  # of one file
MOST_WAITING = 20  # drops and slides in the queue
SHOWN = 1600  # pixels of the longer side on the page; the files have all
LAYERS = {
    "Outline": "Blue: outline of the vessels. Orange: outline of the field of view.",
    "Probability": "Black: probability 0 of a vessel. White: probability 1.",
    "What the slider changed": "White: vessel at this threshold and at the usual one. Blue: only at this one. "
    "Orange: only at the usual one.",
}
HEAD = """# Retinal vessels
Drop photographs of the retina. They stay on this computer. Research software, not a medical device: do not base
a diagnosis on it."""
CSS = """
.refused, .doubtful { padding: 0.5em 0.8em; border-left: 4px solid #e69f00; overflow-wrap: anywhere; }
.measures { width: 100%; } .measures td { padding: 0.1em 0.4em; vertical-align: top; }
.measures td:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums; }
"""


@dataclass
class Drop:
    """The photographs of one drop, by the name of their results."""

    folder: Path  # of the files to download
    found: dict[str, Segmentation] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # their own names
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # of measures.csv


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Open a page to drop photographs of the retina on. It is served to this computer only "
        "(127.0.0.1) and loads nothing from elsewhere. Nothing of it stays when the program ends.",
        epilog="example: python app.py --port 7861",
        formatter_class=HelpFormatter,
    )
    add_weights(parser, "that of predict.py")
    parser.add_argument("--port", type=int, help="of the page (default: the first free one from 7860 on)")
    parser.add_argument(
        "--browser",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="open the page in the browser; --no-browser: print its address only",
    )
    add_prediction_flags(parser)
    args = parser.parse_args()
    if args.port is not None and not 1 <= args.port <= 65535:
        parser.error(f"--port {args.port}: give 1 to 65535")
    return args


def prepare_gradio(folder: Path) -> None:
    """Import Gradio such that it calls nobody and keeps its files in `folder`; UserError if it is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    # it asks its own page whether it is up, which must not go through a proxy
    os.environ["no_proxy"] = f"127.0.0.1,{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')}"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        missing = f"{error.name} is not installed"
        raise UserError(f"{missing}; install it with: pip install -r requirements-app.txt") from None


def segment_drop(
    segmenter: Segmenter, files: Sequence[Path], folder: Path, progress: gradio.Progress
) -> tuple[Drop, list[str]]:
    """Segment the files of one drop; returns what was found, and why files were refused."""
    drop, refused, pixels = Drop(folder), [], 0
    files = list(dict.fromkeys(files))  # Gradio gives equal files one path
    names = {path: name for name, path in name_results({path: path.stem for path in files}, folder).items()}
    for number, path in enumerate(files):
        try:
            if number >= MOST_PHOTOGRAPHS:
                raise UserError(f"{path}: more than {MOST_PHOTOGRAPHS} photographs at a time; drop it later")
            if path.stat().st_size > LARGEST_FILE:
                raise UserError(f"{path}: more than {LARGEST_FILE:,} bytes; save it smaller")
            progress((number, len(files)), desc=path.name, unit="photographs")
            found = segmenter(path) if pixels < MOST_PIXELS else None
            pixels += found.fov.size if found else 0
            if found is None or pixels > MOST_PIXELS:
                raise UserError(f"{path}: more than {MOST_PIXELS:,} pixels at a time; drop it later, alone")
        except UserError as error:
            refused.append(str(error).replace(str(path), path.name))
            continue
        except MemoryError:
            refused.append(f"{path.name}: out of memory; shrink it, or drop fewer at a time")
            continue
        name = names[path]
        drop.found[name], drop.files[name] = found, path.name
        write_png(drop.folder / f"{name}_probability.png", found.levels)
        measure_at_threshold(drop, name)
    return drop, refused


def measure_at_threshold(drop: Drop, name: str) -> None:
    """Examine a photograph at its threshold; write its mask and measures.csv anew."""
    found = drop.found[name]
    row = {"image": name, "photograph": drop.files[name], "threshold": found.threshold}
    drop.rows[name] = row | found.examine()
    write_png(drop.folder / f"{name}_mask.png", found.mask)
    write_measures(drop.folder / "measures.csv", list(drop.rows.values()))


def draw_layer(found: Segmentation, layer: str, usual: float) -> np.ndarray:
    """One of LAYERS as uint8 (H, W, 3) RGB, at most SHOWN pixels wide and high."""
    if layer == "Outline":
        shown = overlay(found.photograph, found.mask, found.fov, found.taken.landmarks)
    elif layer == "Probability":
        shown = as_rgb((found.levels >> 8).astype(np.uint8))
    else:
        before = binarize(found.levels, found.fov, usual)
        shown = compare(Eye("", found.photograph, found.fov, before), found.mask)
    height, width = found.fov.shape
    scale = min(1.0, SHOWN / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(shown, size, interpolation=cv2.INTER_AREA) if scale < 1 else shown


def describe_photograph(row: dict[str, Any]) -> str:
    """Doubts and measures of a photograph as HTML."""
    doubtful = html.escape(row["doubtful"])
    lines = [f'<p class="doubtful">Look at it with care: {doubtful}.</p>'] if doubtful else []
    lines.append('<table class="measures">')
    for name, how in (CONFIDENCE | MEASURES).items():
        if name not in UNSEEN and not math.isnan(value := row.get(name, math.nan)):
            lines.append(
                f"<tr><td>{how.title}</td><td>{value:.{how.digits}f}</td><td>{html.escape(how.hint)}</td></tr>"
            )
    return "\n".join([*lines, "</table>"])


def build_page(segmenter: Segmenter, folder: Path) -> gradio.Blocks:
    """The page; its files go to `folder`."""
    import gradio as gr

    usual = round(segmenter.threshold, 4)  # as the slider shows it

    def drop_files(files: list[str], progress: gradio.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        own = Path(tempfile.mkdtemp(dir=folder))
        drop, refused = segment_drop(segmenter, [Path(file) for file in files], own, progress)
        items = "".join(f"<li>{html.escape(line)}</li>" for line in refused)
        why = f'<div class="refused" role="alert">Refused:<ul>{items}</ul></div>' if refused else ""
        names = list(drop.found)
        first = names[0] if names else None
        chosen = gr.Dropdown(choices=names, value=first, visible=len(names) > 1)
        return [None, drop, why, gr.Column(visible=bool(names)), chosen, usual]

    def show(drop: Drop | None, name: str | None, layer: str) -> list[Any]:
        if drop is None or name not in drop.found:
            return [None, "", "", None, None, None]
        files = [drop.folder / f for f in (f"{name}_mask.png", f"{name}_probability.png", "measures.csv")]
        shown = draw_layer(drop.found[name], layer, segmenter.threshold)
        return [shown, LAYERS[layer], describe_photograph(drop.rows[name]), *map(str, files)]

    def choose(drop: Drop | None, name: str | None, layer: str) -> list[Any]:
        threshold = drop.found[name].threshold if drop and name in drop.found else segmenter.threshold
        return [round(threshold, 4), *show(drop, name, layer)]

    def slide(drop: Drop | None, name: str | None, layer: str, threshold: float) -> list[Any]:
        if threshold == usual:
            threshold = segmenter.threshold
        if drop and name in drop.found and drop.found[name].threshold != threshold:
            drop.found[name].threshold = threshold
            measure_at_threshold(drop, name)
        return show(drop, name, layer)

    with gr.Blocks(title="Retinal vessels", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(HEAD)
        files = gr.File(file_count="multiple", label="Photographs", height=140, elem_id="files")
        why = gr.HTML(elem_id="why")
        state = gr.State()
        with gr.Column(visible=False) as results:
            name = gr.Dropdown(label="Photograph", filterable=False, elem_id="name")
            layer = gr.Radio(list(LAYERS), value="Outline", label="Picture", show_label=False, elem_id="layer")
            threshold = gr.Slider(
                0,
                1,
                usual,
                step=0.01,
                label="Threshold: probability of a vessel",
                elem_id="threshold",
            )
            image = gr.Image(
                format="png", interactive=False, show_label=False, buttons=["fullscreen"], elem_id="image"
            )
            legend = gr.Markdown()
            with gr.Row():
                mask = gr.DownloadButton("Mask", elem_id="mask")
                probability = gr.DownloadButton("Probability (16 bit)", elem_id="probability")
                table = gr.DownloadButton("Measures (CSV)", elem_id="csv")
            measures = gr.HTML(elem_id="measures")
        shown = [image, legend, measures, mask, probability, table]
        dropped = files.upload(drop_files, files, [files, state, why, results, name, threshold])
        dropped.then(show, [state, name, layer], shown, show_progress="hidden")
        name.input(choose, [state, name, layer], [threshold, *shown], show_progress="hidden")
        layer.change(show, [state, name, layer], shown, show_progress="hidden")
        threshold.change(
            slide, [state, name, layer, threshold], shown, trigger_mode="always_last", show_progress="hidden"
        )
    # one prediction at a time, on all cores; whoever comes second sees a place in the queue
    return page.queue(max_size=MOST_WAITING, default_concurrency_limit=1)


def main() -> int:
    args = parse_args()
    with tempfile.TemporaryDirectory(prefix="vessels-", ignore_cleanup_errors=True) as folder:
        prepare_gradio(Path(folder, "page"))
        segmenter = Segmenter(args.weights, args.threshold, args.views, args.device)
        page = build_page(segmenter, Path(folder))
        try:
            _, address, _ = page.launch(
                server_name="127.0.0.1",
                server_port=args.port,
                share=False,
                inbrowser=args.browser,
                prevent_thread_lock=True,
                quiet=True,
                show_error=True,
                max_file_size=20 * LARGEST_FILE,  # Gradio would not say why
                footer_links=[],
                css=CSS,
            )
        except OSError:
            port = args.port or "7860 to 7959"
            raise UserError(
                f"--port {port}: cannot be opened, taken by another program? Give another"
            ) from None
        print(f"weights: {', '.join(map(str, segmenter.weights))}; threshold {segmenter.threshold:.4f}")
        print(f"open {address} in a browser of this computer; Ctrl-C ends the page and removes its files")
        with Stop() as stop:
            while not stop.requested:
                time.sleep(0.2)
        page.server.force_exit = True  # a tab that is open would keep it waiting
        logging.disable()  # what the server says of connections that it cuts
        page.close(verbose=False)
    return 0


if __name__ == "__main__":
    run(main)
