"""The start of a training: network and optimizer, new or resumed, and the folder that it is written to."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from anatomy.photograph import DISC_SHARE
from data import eye_of, first_copies, read_working_disc
from datasets.eyes import Eye, digest, rescale
from datasets.field_of_view import fov_diameter
from datasets.images import refuse_among_images
from pages.pictures import write_history
from prediction.scale import factors_for, working_diameter
from system import processes
from system.files import atomic
from training.earlier import OWN, check_own, list_own, move_to_earlier, undo_move
from training.optimizers import make_optimizer
from training.settings import Run, Settings, outputs_trained
from training.state import Training
from training.time_budget import fit_to_minutes
from utils import UserError, explain, seed_everything

if TYPE_CHECKING:
    from model import Network

Split = dict[str, list[str]]  # names of copies to `train` on, for `validation`, and `held_out`
Move = Callable[[], None]


def start_training(
    run: Run,
    settings: Settings,
    split: Split,
    training: Sequence[Eye],
    validation: Sequence[Eye],
    move_earlier: Move | None = None,
) -> Training:
    """A new network and its optimizer, or with `run.resume` those of last.pth.

    `settings.minutes` chooses `epochs` and `crops` now. `move_earlier` moves an earlier training away; it is
    called when the first checkpoint of this one is ready.

    Raises:
        UserError: there is nothing to resume, or it is of other eyes; or processes that differ.
    """
    import torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from model import NETWORKS, ResUNet

    seed_everything(settings.seed)
    outputs = outputs_trained(settings)
    model = NETWORKS[settings.model](out_channels=len(outputs), width=settings.width, depth=settings.depth)
    model.outputs, model.clahe = outputs, settings.clahe > 0
    if isinstance(model, ResUNet) and settings.pretrained and not run.resume:
        model.load_imagenet()
    started_from: list[str] = []
    if settings.start_from and run.initial and not run.resume:
        load_initial(model, run.initial)
        started_from = sorted(run.initial.trained_on)
    if run.initial:
        model.disc, model.diameter = run.initial.disc, run.initial.diameter
    else:
        set_scale(model, run.data, training)
    model = model.to(run.device).to(memory_format=torch.channels_last)
    average = None
    if settings.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    optimizer = make_optimizer(model, settings.optimizer, settings.lr)
    state = Training(settings, split, model, average, optimizer, started_from=started_from)
    state.pixels = digest([*training, *validation])
    if run.resume:
        state.restore(run.files / "last.pth")
    elif settings.minutes:
        epochs, number = fit_to_minutes(model, optimizer, training, validation, settings, run.workers)
        state.settings = replace(settings, epochs=epochs, crops=number)
        print(f"{epochs} epochs of {number} crops fit into {settings.minutes:g} minutes")
    processes.check_same(
        [state.settings, split, state.pixels, len(state.history), state.losses],
        "flags, eyes, or last.pth; start all nodes with the same command, the same data, and one folder "
        "--files that all of them see",
    )
    if processes.is_main():
        if move_earlier:  # it stays until a checkpoint of this training is ready

            def make_room() -> None:
                move_earlier()
                write_split(run.files, split)

            state.make_room = make_room
        else:
            write_split(run.files, split)
            if state.history:
                with spare_training():
                    write_history(run.files, state.history)  # a kill may have come between the two files
    state.start = time.time()
    return state


@contextlib.contextmanager
def spare_training() -> Iterator[None]:
    """Say which picture or table of a training cannot be written, and go on: last.pth has the history."""
    from tqdm import tqdm

    try:
        yield
    except (UserError, OSError) as error:  # OSError: Matplotlib finds no folder for its cache
        said = error if isinstance(error, UserError) else explain(error)
        tqdm.write(f"{said}; the training goes on", file=sys.stderr)


def load_initial(model: Network, initial: Network) -> None:
    """Give a network the weights of another, which may be shallower, and find vessels instead of their kinds.

    Of a deeper network the levels below begin with random weights. Arteries and veins both begin as vessels,
    half as probable, but not alike: what is alike in both would tell them apart only slowly.
    """
    import torch

    weights, own = initial.state_dict(), model.state_dict()
    if deeper := model.config["depth"] - initial.config["depth"]:
        below = f"encoder.{initial.config['depth']}.conv."
        for name in list(weights):
            block, _, rest = name.partition(".")
            if block == "bottleneck":
                weights[below + rest] = weights.pop(name)
            elif block == "decoder":  # counted from the deepest
                level, _, rest = rest.partition(".")
                weights[f"new.{int(level) + deeper}.{rest}"] = weights.pop(name)
        weights = {name.replace("new.", "decoder."): value for name, value in weights.items()}
        weights = {**own, **weights}
    if model.outputs != initial.outputs:
        for name in ("classifier.weight", "classifier.bias"):
            like = weights[name].expand_as(own[name])
            weights[name] = like + 0.05 * torch.randn(like.shape)
        weights["classifier.bias"] -= math.log(2)
    model.load_state_dict(weights)


def set_scale(model: Network, data: Path, eyes: Sequence[Eye]) -> None:
    """Note in a network the scale of the eyes of new_data, `data`, that train it."""
    model.disc = read_working_disc(data)
    diameters = [fov_diameter(eye.fov) for eye in first_copies(eyes)]
    model.diameter = model.disc / DISC_SHARE if model.disc else working_diameter(diameters)


def bring_to_scale(eyes: Mapping[str, Eye], data: Path, network: Network) -> dict[str, Eye]:
    """Resize the eyes of new_data, `data`, to the scale at which a network was trained.

    dataset.json says the scale of eyes that augment.py resized; those that are as they were taken, or in a
    folder made by hand, are looked at one by one, and their copies are resized alike.
    """
    disc = read_working_disc(data)
    if disc:
        factors = dict.fromkeys(map(eye_of, eyes), (network.disc or network.diameter * DISC_SHARE) / disc)
    else:
        first = first_copies(eyes.values())
        found = factors_for((eye.image for eye in first), network)
        factors = {eye_of(eye.name): factor for eye, factor in zip(first, found, strict=True)}
    changed = {name: factor for name, factor in factors.items() if abs(math.log(factor)) > 0.005}
    if changed:
        least, most = min(changed.values()), max(changed.values())
        print(f"{len(changed)} eyes resized to the scale of --start-from, by {least:.2f} to {most:.2f}")
    return {
        name: rescale(eye, changed[eye_of(name)]) if eye_of(name) in changed else eye
        for name, eye in eyes.items()
    }


def with_kinds(eyes: Mapping[str, Eye], data: Path) -> dict[str, Eye]:
    """Those of the eyes that have labels of arteries and veins.

    Raises:
        UserError: none has.
    """
    labelled = {name: eye for name, eye in eyes.items() if eye.kinds is not None}
    if not labelled:
        raise UserError(
            f"{data / 'train'}: no labels of arteries and veins; write them with: python augment.py DATA_SET "
            "--arteries-veins FOLDER"
        )
    if len(labelled) < len(eyes):
        number = f"{len(labelled)} of {len(eyes)} images"
        print(f"{number} have labels of arteries and veins; the others are left out")
    return labelled


def plan_move(files: Path, folds: bool = True) -> Move | None:
    """How to move away what an earlier training left in FILES; None if there is nothing.

    `folds` says whether those of an earlier cross-validation belong to it.

    Raises:
        UserError: files of a training's names that train.py did not write, or a folder of images.
    """
    if not processes.is_main():
        return None
    undo_move(files)
    names = [*OWN, "scores.csv", *(f"probability/{path.name}" for path in files.glob("probability/*.png"))]
    check_own(files, [*OWN, *(["folds.csv"] if folds else [])])
    refuse_among_images("--files", files)
    if folds:
        names.append("folds.csv")
        for folder in sorted(path for path in files.glob("fold*") if path.name[4:].isdecimal()):
            check_own(folder)
            own = [folder / name for name in OWN] + list(folder.glob("probability/*.png"))
            names += [path.relative_to(files).as_posix() for path in own]
    if not any((files / name).is_file() for name in names):
        return None
    return lambda: move_to_earlier(files, names)


def write_split(files: Path, split: Split) -> None:
    """Begin the folder of a training with the list of its files and its split."""
    list_own(files)
    with atomic(files / "split.json") as temporary:
        temporary.write_text(json.dumps(split, indent=1) + "\n")
