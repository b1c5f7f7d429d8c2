"""Many photographs: each is read, segmented and written by one worker, several workers at a time."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from anatomy.cameras import Cameras, camera_of_photograph, doubt_disc, is_likely
from anatomy.landmarks import PLACES, Landmarks
from anatomy.photograph import Photograph, look_at
from batch.results import ResultsFolder
from datasets.decoding import camera_of
from datasets.dicom import read_tags
from datasets.duplicates import fingerprint, pack_print
from datasets.images import read_image, write_png
from measures.arteries_veins import ArteriesVeins
from measures.doubts import uncertainty
from measures.zones import DISC_UM
from pages.pictures import overlay, overlay_kinds, write_jpeg, write_layers
from pages.results import PARTS, left_out, result_file
from prediction.segmenter import Kinds, Segmentation, segment_photograph
from system.limits import usable_cores
from system.processes import on_this_machine
from system.records import state
from system.threads import threads
from utils import UserError

if TYPE_CHECKING:
    from model import Network

# each holds a photograph with all its results; four give a CPU enough to do, and leave a GPU waiting
MOST_WORKERS, MOST_BESIDE_GPU = 4, 8


@dataclass
class Predictor:
    """How to segment a photograph, and where its results go."""

    model: Network  # in evaluation mode, on the device to use
    threshold: float  # in [0, 1]
    views: int  # that are averaged: 1, 2, 4 or 8
    diameter: float | None  # of the fields of view, in pixels; None: each photograph's own
    results: ResultsFolder
    parts: Collection[str] = tuple(PARTS)  # what is written of each
    kinds: Network | None = None  # tells arteries from veins
    cameras: Cameras = field(default_factory=dict)  # that are known from several of the photographs
    landmarks: Mapping[Path, Landmarks] = field(default_factory=dict)  # of those


class Cancelled(Exception):
    """Work given up because the program ends."""


class Unreadable(UserError):
    """A photograph that cannot be read; the others can be segmented all the same."""


def predict_photograph(path: Path, name: str, predictor: Predictor) -> dict[str, Any]:
    """Read one photograph, segment it and write its results by this name; returns its row of the table.

    Raises:
        UserError: it cannot be read (then `Unreadable`), or a result cannot be written.
    """
    try:
        photograph = read_image(path)
    except UserError as error:
        raise Unreadable(str(error)) from None
    how = (predictor.threshold, predictor.views, predictor.kinds, predictor.cameras)
    try:
        taken = look_at(photograph, predictor.diameter, predictor.landmarks.get(path))
        found = segment_photograph(predictor.model, taken, *how)
    except UserError as error:  # too large for the memory
        raise Unreadable(f"{path}: {error}") from None
    predictor.results.begin(name)
    tags = read_tags(path, predictor.results.made_by.get("dicom_id"))
    given = predictor.results.um_per_pixel.find(path)
    disc = found.taken.landmarks.disc_diameter
    um = given or likely_um(tags.um_per_pixel, disc)
    kinds = found.measure_kinds(um)
    write_results(predictor.results.out, name, found, predictor.parts, kinds)
    row: dict[str, Any] = {"doubtful": ""}
    reasons = [f"the first of {tags.frames} frames"] if tags.frames > 1 else []
    if "measures" in predictor.parts:
        row = found.examine(um) | (kinds.row if kinds else {})
        if um and not given:
            row["um_per_pixel_from"] = "file"
        if given and disc > 0 and not likely_um(given, disc):  # another unit, or another column
            reasons.append(f"--um-per-pixel makes the disc {given * disc / 1000:.1f} mm wide")
        reasons.append(doubt_disc(found.taken, camera_of_photograph(found.taken, predictor.cameras)))
    row["doubtful"] = "; ".join(filter(None, [*reasons, row["doubtful"]]))
    height, width = found.fov.shape
    return {
        "image": name,
        "photograph": str(path),
        "photograph_width": width,
        "photograph_height": height,
        "patient": tags.identifier,
        "eye": tags.eye,
        "camera": tags.camera or camera_of(path),
        "fingerprint": pack_print(fingerprint(*found.taken.small)),
        "diameter": found.taken.diameter,
        "border": found.taken.border,
        "scale": found.scale.factor,
        "scale_eyes": found.scale.eyes,
        **row,
    }


def likely_um(tagged: float | None, disc: float) -> float | None:
    """Micrometres a pixel as a file says it, if the disc, of this diameter in pixels or NaN, agrees roughly."""
    return None if tagged is None or not is_likely(tagged * disc / DISC_UM) else tagged


def write_results(
    out: Path, name: str, found: Segmentation, parts: Collection[str], kinds: ArteriesVeins | None
) -> None:
    """Write these `PARTS` of a photograph's results; those of an earlier run that are not among them go.

    Raises:
        UserError: a file cannot be written.
    """
    for folder in left_out(parts):
        (out / result_file(folder, name)).unlink(missing_ok=True)
    pictures: dict[str, np.ndarray] = {"masks": found.mask} if "masks" in parts else {}
    pictures |= {"probability": found.levels} if "probability" in parts else {}
    pictures |= {"uncertainty": uncertainty(found.levels)} if "uncertainty" in parts else {}
    for folder, pixels in pictures.items():
        write_png(out / result_file(folder, name), pixels)
    if "outlines" in parts or kinds:
        small, landmarks = to_look_at(found.taken)
        if "outlines" in parts:
            write_layers(out, name, small, overlay(small, found.small_mask, found.taken.small[1], landmarks))
        if found.kinds and kinds:
            write_kinds(out, name, found.kinds, kinds, small, landmarks)


def to_look_at(taken: Photograph) -> tuple[np.ndarray, Landmarks]:
    """A photograph reduced for the page, uint8 (h, w, 3) RGB, and its landmarks there."""
    small = taken.small[0]
    scale = len(small) / len(taken.pixels)
    return small, replace(taken.landmarks, **{p: scale * getattr(taken.landmarks, p) for p in PLACES})


def write_kinds(
    out: Path, name: str, kinds: Kinds, measured: ArteriesVeins, small: np.ndarray, landmarks: Landmarks
) -> None:
    """Write arteries and veins: masks, probabilities, and a picture of what `to_look_at` gives."""
    for folder, pixels in kinds.pictures.items():
        write_png(out / result_file(folder, name), pixels)
    scale = len(small) / len(kinds.pixels)
    pixels = cv2.resize(kinds.pixels, small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    six = {kind: [replace(one, line=scale * one.line) for one in own] for kind, own in measured.six.items()}
    write_jpeg(out / result_file("page/arteries_veins", name), overlay_kinds(small, pixels, landmarks, six))


def predict_photographs(
    names: Mapping[str, Path],
    predictor: Predictor,
    problems: dict[str, str],
    share: Iterable[str] | None = None,
) -> Generator[str, None, None]:
    """Segment photographs, several at a time, and yield the name of each that is done, in their order.

    If the caller stops early (Ctrl-C, an error), photographs in the network are given up at its next view or
    tile, and results that are being written are written whole.

    Args:
        names: the photographs by the name of their results.
        predictor: network and folder.
        problems: receives a message for each that cannot be read, by name.
        share: those of the names that this process takes; None: all.

    Raises:
        UserError: a result cannot be written.
    """
    stopped = threading.Event()

    def check(*_: object) -> None:
        if stopped.is_set():
            raise Cancelled

    def work(name: str) -> str:
        before: list[int | str] = [-1, 0, ""]  # as no file is; why it cannot be read, reading will say
        with contextlib.suppress(OSError):
            before = state(names[name]) if names[name].is_file() else before
        try:
            row = predict_photograph(names[name], name, predictor)
        except Unreadable as error:
            problems[name] = str(error)
        else:
            predictor.results.finish(name, names[name], before, row)
        return name

    hook = predictor.model.register_forward_pre_hook(check)
    waiting: deque[Future[str]] = deque()
    with shared_cores(predictor, len(names)) as workers, threads(workers) as pool:
        try:
            for name in names if share is None else share:
                waiting.append(pool.submit(work, name))
                if len(waiting) > 2 * workers:  # so that memory does not grow with the number of photographs
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            hook.remove()


@contextlib.contextmanager
def shared_cores(predictor: Predictor, photographs: int) -> Iterator[int]:
    """Yield the number of workers; inside, each has its share of the cores.

    On a CPU each worker runs the network on its share. Together they are as fast as one network on all cores,
    and none of them waits while another reads or encodes. On a GPU the network serves one worker at a time.
    """
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    on_cpu = next(predictor.model.parameters()).device.type == "cpu"
    cores = before[0] if on_cpu else usable_cores() // on_this_machine()
    workers = max(1, min(MOST_WORKERS if on_cpu else MOST_BESIDE_GPU, cores, photographs))
    threads = max(1, cores // workers)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    networks = [network for network in (predictor.model, predictor.kinds) if network]
    turn = contextlib.nullcontext() if on_cpu else threading.Lock()
    try:
        for network in networks:
            network.turn = turn
        yield workers
    finally:
        for network in networks:
            network.turn = contextlib.nullcontext()
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
