"""The settings of a training: chosen once from flags, device and data, or read from last.pth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from networks.checkpoints import KINDS, VESSELS, load_checkpoint
from system import processes
from system.limits import usable_cores
from utils import UserError

if TYPE_CHECKING:
    import torch

    from model import Network


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What determines the weights, besides the eyes; the flags of train.py of the same names set it.

    Every checkpoint holds it as a dict. The defaults are those of a CPU and of one data set.
    """

    model: str = "unet"
    pretrained: bool = False
    arteries_veins: bool = False
    width: int = 16
    depth: int = 3
    epochs: int = 30
    crops: int = 2240
    minutes: float | None = None
    batch_size: int = 4
    crop: int = 128
    choroid: float = 0.3
    camera: float = 0.15
    degrade: float = 0.0
    clahe: float = 0.0
    optimizer: str = "muon"
    lr: float = 0.02
    dice: float = 0.0
    ema: float = 0.0
    seed: int = 42
    start_from: str | None = None

    def __post_init__(self) -> None:
        for own in fields(self):
            value = getattr(self, own.name)  # a checkpoint may hold anything
            kind = (int, float) if type(own.default) is float else type(own.default)
            if not (isinstance(value, kind) or (own.default is None and isinstance(value, (str, int, float)))):
                raise TypeError(f"{own.name} is {value!r:.40}")

    def from_random_weights(self, given: Mapping[str, Any]) -> Settings:
        """The same training without `start_from`, at the rate of random weights unless one is given."""
        return replace(self, start_from=None, lr=given.get("lr", RATES[self.optimizer]))


@dataclass(frozen=True)
class Run:
    """Where a training runs, and which settings the user gave on the command line."""

    data: Path
    files: Path
    device: torch.device
    workers: int
    resume: bool
    given: Mapping[str, Any]  # by the names of `Settings`
    # of `start_from`, or with `resume` of last.pth; the eyes were brought to its scale; None: are at their own
    initial: Network | None = None
    initial_threshold: float | None = None  # that its checkpoint holds

    def within(self, folder: Path) -> Run:
        """The run of one training of several in a folder of its own, which goes on there if it had begun."""
        return replace(self, files=folder, resume=self.resume and (folder / "last.pth").exists())

    def next_step(self) -> str:
        """The command that tries the checkpoint out: on the test eyes, if there are any."""
        there = (self.data / "test" / "image").is_dir()
        return f"python {f'test.py --data {self.data}' if there else 'predict.py PHOTOGRAPHS'} --weights"


RATES = {"muon": 0.02, "adamw": 0.005}  # peak learning rates
FINE_TUNING = 0.4  # times these: weights that are good already need smaller steps
GPU = {"width": 24, "batch_size": 32}  # the shipped width; few crops leave a GPU idle, see docs/speed.md
# what tells an artery from a vein lies farther apart than what tells a vessel, so crops are larger
ARTERIES_VEINS: dict[str, Any] = {
    **{"depth": 4, "crop": 192, "epochs": 6, "ema": 0.99},
    **{"choroid": 0.0, "camera": 0.3, "degrade": 0.3, "clahe": 0.0},
}
SEVERAL_DATA_SETS = {"camera": 0.3, "degrade": 0.5, "clahe": 0.5}
# what versions did that had no such setting yet; a new setting gets its line here
OLDER_VERSIONS: dict[str, Any] = {
    **{"model": "unet", "pretrained": False, "arteries_veins": False, "minutes": None, "start_from": None},
    **dict.fromkeys(("choroid", "camera", "degrade", "clahe", "dice", "ema"), 0.0),
}


def choose_settings(
    given: Mapping[str, Any],
    device: torch.device,
    data_sets: int,
    start: tuple[Network, Mapping[str, Any]] | None = None,
) -> Settings:
    """The settings of a new training on this device and so many data sets, from those that the user gave.

    `start` is the network of `start_from` and its checkpoint, as of `load_checkpoint`.

    Raises:
        UserError: it has another width or depth than given.
    """
    chosen: dict[str, Any] = GPU if device.type != "cpu" else {}
    chosen = chosen | (SEVERAL_DATA_SETS if data_sets > 1 else {})
    if start:
        chosen |= recipe_of(start[1]) | {"arteries_veins": start[0].outputs == KINDS}
    chosen |= (ARTERIES_VEINS if given.get("arteries_veins") else {}) | dict(given)
    settings = Settings(**chosen)
    rate = RATES[settings.optimizer]
    if start:
        config = start[0].config
        own = f"the network of {settings.start_from} has"
        if given.get("width", config["width"]) != config["width"]:
            raise UserError(f"--width {given['width']}: {own} {config['width']}")
        depth = chosen.get("depth", config["depth"])
        if depth < config["depth"] or (depth > config["depth"] and config["name"] != "unet"):
            raise UserError(f"--depth {depth}: {own} {config['depth']}")
        settings = replace(settings, model=config["name"], width=config["width"], depth=depth)
        rate *= FINE_TUNING
    elif not {"width", "depth"} <= given.keys():
        on_cpu, on_gpu = "no GPU: smaller, as accurate on DRIVE", "GPU: that of the shipped weights"
        why = "" if "width" in given else f" ({on_cpu if device.type == 'cpu' else on_gpu})"
        print(f"network: width {settings.width}, depth {settings.depth}{why}")
    settings = replace(settings, lr=given.get("lr", rate))
    check_batches(settings)
    return settings


def outputs_trained(settings: Settings) -> tuple[str, ...]:
    """What the network of a training finds, one name an output."""
    return KINDS if settings.arteries_veins else VESSELS


def recipe_of(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """The shares of changed crops with which a network was trained: one that goes on from it keeps them."""
    own = checkpoint.get("settings")
    known = {**OLDER_VERSIONS, **(own if isinstance(own, dict) else {})}
    shares = {name: known[name] for name in ("choroid", "camera", "degrade", "clahe")}
    return {name: share for name, share in shares.items() if type(share) in (int, float) and 0 <= share <= 1}


def usual_workers(device: torch.device) -> int:
    """How many processes cut crops unless the user says: a CPU is busy with the steps."""
    return min(8, usable_cores()) if device.type != "cpu" else 0


def check_batches(settings: Settings) -> None:
    """Raise UserError if the processes cannot share a batch, or it leaves batch normalisation one pixel."""
    number, size = processes.world_size(), settings.batch_size
    if size % number:
        raise UserError(f"--batch-size {size}: cannot be dealt out to {number} processes; give a multiple")
    if size == number and settings.crop <= 2**settings.depth:
        raise UserError(
            f"--batch-size {size}: --crop {settings.crop} --depth {settings.depth} leave one pixel at the "
            f"deepest level, and batch normalisation needs two; give --batch-size {2 * number}, or --crop "
            f"{2 * 2**settings.depth}"
        )


def read_settings(path: Path, given: Mapping[str, Any]) -> Settings:
    """The settings of a training that goes on from its last.pth; prints those that were not given.

    Raises:
        UserError: the file is missing or damaged, or a given setting differs from the training's.
    """
    network, last = load_checkpoint(path, outputs=None)
    try:
        before = Settings(**{**OLDER_VERSIONS, **last["settings"]})
        of_network = tuple(network.config[name] for name in ("name", "width", "depth"))
        if of_network != (before.model, before.width, before.depth):
            raise ValueError("its network is another than its settings say")
        RATES[before.optimizer]
        finished = len(last["history"]) == before.epochs
    except (KeyError, TypeError, ValueError) as error:
        raise no_state(path, error) from None
    differences = [
        f"{flag(name)} {own}, not {given[name]}"
        for name, own in asdict(before).items()
        if given.get(name, own) != own
    ]
    if differences:
        remedy = "give --resume with the same settings, or none"
        if finished:
            remedy = (
                "it is finished, its learning rate has come down; to train on, begin a new one with "
                f"--start-from {path.with_name('checkpoint.pth')} and another --files"
            )
        raise UserError(f"{path}: trained with {'; '.join(differences)}; {remedy}")
    others = {f.name: getattr(before, f.name) for f in fields(before) if f.name not in given}
    others = {name: value for name, value in others.items() if value != getattr(Settings, name)}
    if others:
        flags = [flag(name) if value is True else f"{flag(name)} {value}" for name, value in others.items()]
        print(f"as this training began: {', '.join(flags)}")
    check_batches(before)
    return before


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def no_state(path: Path, error: Exception) -> UserError:
    """The message for a last.pth from which no training can go on."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return UserError(f"{path}: holds no state to go on from ({reason}); train without --resume")
