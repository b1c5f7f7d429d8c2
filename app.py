"""A page on this computer to drop photographs of the retina on: vessels, measures, files to download."""

from __future__ import annotations

import argparse
import html
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from batch.folders import name_results
from datasets.eyes import Eye
from datasets.images import reduced, write_png
from measures.arteries_veins import ArteriesVeins
from measures.table import write_measures
from networks.loading import add_kinds, add_prediction_flags, add_weights, choose_kinds
from pages.pictures import as_rgb, compare, overlay, overlay_kinds, write_jpeg
from pages.report import describe_photograph
from pages.results import MEASURES_TABLE
from pages.viewer import PLAIN_NAMES, START, VIEWER, VIEWER_STYLE, pictures, viewer_script
from prediction.segmentation import binarize
from prediction.segmenter import Segmentation, Segmenter
from system.signals import Stop
from utils import HelpFormatter, UserError, between, not_installed, out_of_memory, run

if TYPE_CHECKING:
    import gradio

MOST_PHOTOGRAPHS = 20  # of one drop
MOST_PIXELS = 100_000_000  # of one drop: they stay in memory, some fifteen bytes a pixel
LARGEST_FILE = 100_000_000  # of one file
MOST_WAITING = 20  # drops and slides in the queue
KINDS_LAYER = "Arteries, veins"
LAYERS = {
    "Outline": "Blue: outline of the vessels. Orange: of the field of view. Green: disc and fovea.",
    KINDS_LAYER: "Red: artery. Blue: vein. Green: crossing. White: unknown. Circles: zone B lies between "
    "the two inner ones, zone C between the inner and the outer one. Thick lines, with widths in pixels: the "
    "six largest vessels, of which CRAE and CRVE are.",
    "Probability": "Black: probability 0 of a vessel. White: probability 1.",
    "What the slider changed": "White: vessel at this threshold and at the usual one. Blue: only at this one. "
    "Orange: only at the usual one.",
}
HEAD = """# Retinal vessels
Drop photographs of the retina. They stay on this computer. Research software, not a medical device: do not base
a diagnosis on it."""
CSS = """
.refused, .doubtful { padding: 0.5em 0.8em; border-left: 4px solid #e69f00; overflow-wrap: anywhere; }
#files .or { color: inherit; }
.measures { width: 100%; }
.measures th, .measures td { padding: 0.1em 0.4em; text-align: left; vertical-align: top; }
.measures tbody th { font-weight: normal; }
.measures td:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums; }
"""


@dataclass
class Drop:
    """The photographs of one drop, by the name of their results."""

    folder: Path  # of the files to download
    found: dict[str, Segmentation] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # their own names
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # of measures.csv
    kinds: dict[str, ArteriesVeins | None] = field(default_factory=dict)  # None: they were not told apart


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Open a page to drop photographs of the retina on. It is served to this computer only "
        "(127.0.0.1) and loads nothing from elsewhere. Nothing of it stays when the program ends.",
        epilog="example: python app.py --port 7861",
        formatter_class=HelpFormatter,
    )
    add_weights(parser, "that of predict.py")
    port = between(1, 65535, int)
    parser.add_argument("--port", type=port, help="of the page (default: the first free one from 7860 on)")
    parser.add_argument(
        "--browser",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="open the page in the browser; --no-browser: print its address only",
    )
    add_kinds(parser, "with the usual weights")
    add_prediction_flags(parser)
    return parser.parse_args()


def prepare_gradio(folder: Path) -> None:
    """Import Gradio such that it calls nobody and keeps its files in `folder`; UserError if it is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    # it asks its own page whether it is up, which must not go through a proxy
    os.environ["no_proxy"] = f"127.0.0.1,{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')}"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise not_installed(error, "requirements-app.txt") from None


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
        except Exception as error:  # of Python, OpenCV or torch, also of a GPU
            if not out_of_memory(error):
                raise
            refused.append(f"{path.name}: out of memory; shrink it, or drop fewer at a time")
            continue
        name = names[path]
        drop.found[name], drop.files[name] = found, path.name
        write_png(drop.folder / f"{name}_probability.png", found.levels)
        write_jpeg(drop.folder / f"{name}_photograph.jpg", found.taken.small[0])
        measure_at_threshold(drop, name)
    return drop, refused


def measure_at_threshold(drop: Drop, name: str) -> None:
    """Examine a photograph at its threshold; write its mask and measures.csv anew."""
    found = drop.found[name]
    height, width = found.fov.shape
    row = {"image": name, "photograph": drop.files[name], "threshold": found.threshold}
    row |= {"photograph_width": width, "photograph_height": height}
    kinds = drop.kinds[name] = found.measure_kinds()
    drop.rows[name] = row | found.examine() | (kinds.row if kinds else {})
    write_png(drop.folder / f"{name}_mask.png", found.mask)
    write_measures(drop.folder / MEASURES_TABLE, list(drop.rows.values()))


def draw_layer(found: Segmentation, kinds: ArteriesVeins | None, layer: str, usual: float) -> np.ndarray:
    """One of LAYERS as uint8 (H, W, 3) RGB, see `reduced`."""
    landmarks = found.taken.landmarks
    if layer == "Outline":
        return reduced(overlay(found.photograph, found.mask, found.fov, landmarks))
    if layer == KINDS_LAYER and found.kinds and kinds:
        return reduced(overlay_kinds(found.photograph, found.kinds.pixels, landmarks, kinds.six))
    if layer == "Probability":
        return reduced(as_rgb((found.levels >> 8).astype(np.uint8)))
    before = binarize(found.levels, found.fov, usual)
    return reduced(compare(Eye("", found.photograph, found.fov, before), found.mask))


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
            return ["", "", "", None, None, None]
        files = [drop.folder / f for f in (f"{name}_mask.png", f"{name}_probability.png", MEASURES_TABLE)]
        drawn = draw_layer(drop.found[name], drop.kinds[name], layer, segmenter.threshold)
        # a name of its own, which no browser has kept
        shown = drop.folder / f"{name}_layer_{time.time_ns()}.jpg"
        write_jpeg(shown, drawn)
        return [
            pictures(drop.folder / f"{name}_photograph.jpg", shown, drop.files[name], layer),
            f"Left: the photograph. Right: {LAYERS[layer]}",
            describe_photograph(drop.rows[name]),
            *map(str, files),
        ]

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
            there = [title for title in LAYERS if segmenter.kinds or title != KINDS_LAYER]
            layer = gr.Radio(there, value="Outline", label="Picture", show_label=False, elem_id="layer")
            what = "Threshold: probability of a vessel"
            threshold = gr.Slider(0, 1, usual, step=0.01, label=what, elem_id="threshold")
            script = viewer_script() + START
            image = gr.HTML(html_template=VIEWER, css_template=VIEWER_STYLE, js_on_load=script, elem_id="image")
            legend = gr.Markdown()
            with gr.Row():
                mask = gr.DownloadButton("Mask", elem_id="mask")
                probability = gr.DownloadButton("Probability (16 bit)", elem_id="probability")
                table = gr.DownloadButton("Measures (CSV)", elem_id="csv")
            measures = gr.HTML(elem_id="measures")
        shown = [image, legend, measures, mask, probability, table]
        # one bar, where the photographs were dropped
        made = [files, state, why, results, name, threshold]
        dropped = files.upload(drop_files, files, made, show_progress_on=files)
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
        kinds = choose_kinds(args, not args.weights) or False
        segmenter = Segmenter(args.weights, args.threshold, args.views, args.device, kinds)
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
                js=PLAIN_NAMES,
                allowed_paths=[folder],
            )
        except OSError:
            why = "cannot be opened, taken by another program? Give another"
            raise UserError(f"--port {args.port or '7860 to 7959'}: {why}") from None
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
