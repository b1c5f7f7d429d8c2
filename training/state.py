"""The state of a training: save it, resume it, move an earlier one away."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from networks.checkpoints import load_checkpoint, save_checkpoint
from system.devices import pick_device
from utils import UserError, versions

if TYPE_CHECKING:
    import torch
    from torch.optim.swa_utils import AveragedModel

    from model import Network


# what versions did that had no such setting yet; a new setting gets its line here
AS_IT_WAS = {
    "model": "unet",
    "pretrained": False,
    "minutes": None,
    "choroid": 0.0,
    "camera": 0.0,
    "degrade": 0.0,
    "clahe": 0.0,
    "start_from": None,
    "dice": 0.0,
    "ema": 0.0,
}
RECIPE = ("choroid", "camera", "degrade", "clahe", "dice")  # of these, what is read only while it trains


@dataclass
class Training:
    """The network in training and everything needed to resume it.

    No random state is needed: crops follow from the seed and their number, the learning rate from the step, and
    the network has no dropout.
    """

    settings: dict[str, Any]
    split: dict[str, list[str]]
    model: Network
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    losses: list[float] = field(default_factory=list)  # of the running epoch
    history: list[dict[str, float]] = field(default_factory=list)  # of the epochs before
    seconds: float = 0.0  # trained before this start
    start: float = field(default_factory=time.time)
    chosen: Collection[str] = ()  # settings that the user gave
    make_room: Callable[[], None] | None = None  # moves an earlier training away, before the first file

    @property
    def averaged(self) -> Network:
        """The network to validate and keep: with averaged weights, if there are any."""
        return cast("Network", self.average.module) if self.average else self.model

    @property
    def best(self) -> float:
        """The best validation F1 so far, or -1."""
        return max((row["f1"] for row in self.history if "f1" in row), default=-1.0)

    def elapsed(self) -> float:
        """Seconds trained so far."""
        return self.seconds + time.time() - self.start

    def save(self, path: Path, model: Network, **more: Any) -> None:
        """Write a checkpoint with the weights of `model` and what all checkpoints contain."""
        common = {"model": model.config, "weights": model.state_dict()}
        own = {"settings": self.settings, "split": self.split, "diameter": model.diameter, "disc": model.disc}
        own["versions"] = versions()
        save_checkpoint(path, {**common, **own, **more}, self.make_room)
        self.make_room = None

    def save_last(self, path: Path) -> None:
        """Write last.pth, from which `restore` resumes."""
        average = self.average.state_dict() if self.average else None
        states = {"optimizer": self.optimizer.state_dict(), "average": average}
        self.save(path, self.model, **states, losses=self.losses, history=self.history, seconds=self.elapsed())

    def as_it_was(self, before: dict[str, Any]) -> dict[str, Any]:
        """The settings of last.pth and, for those that its version did not have yet, what it did instead.

        A resumed training takes the recipe from them where the user left it to the defaults: an update may have
        changed those since.
        """
        before = {**AS_IT_WAS, **before}
        kept = {n: before[n] for n in RECIPE if n not in self.chosen and self.settings.get(n) != before[n]}
        if kept:
            words = ", ".join(f"--{name} {value}" for name, value in kept.items())
            print(f"as this training began: {words}")
        self.settings |= kept
        return before

    def restore(self, path: Path) -> None:
        """Resume from last.pth.

        Raises:
            UserError: the file is missing or damaged, or belongs to other settings or eyes.
        """
        _, last = load_checkpoint(path, pick_device("cpu"))
        try:
            before = self.as_it_was(last["settings"])
            if self.settings["minutes"] and before.get("minutes") == self.settings["minutes"]:
                # measured when it began
                self.settings |= {name: before[name] for name in ("epochs", "crops")}
            differences = [
                f"--{name.replace('_', '-')} {before.get(name)}, not {value}"
                for name, value in self.settings.items()
                if before.get(name) != value
            ]
            if last["split"] != self.split:
                differences.append("other eyes or another split")
            if differences:
                remedy = "give --resume with the same settings"
                if len(last["history"]) == before["epochs"]:
                    remedy = (
                        "it is finished, its learning rate has come down; to train on, begin a new one with "
                        f"--start-from {path.with_name('checkpoint.pth')} and another --files"
                    )
                raise UserError(f"{path}: trained with {'; '.join(differences)}; {remedy}")
            self.model.load_state_dict(dict(last["weights"]))
            self.optimizer.load_state_dict(last["optimizer"])
            if self.average:
                self.average.load_state_dict(dict(last["average"]))
            for weight in self.model.parameters():
                state = self.optimizer.state[weight]
                names = ("momentum",) if "momentum" in state else ("exp_avg", "exp_avg_sq")  # Muon, AdamW
                if state and any(state[name].shape != weight.shape for name in names):
                    raise ValueError("the optimizer's state does not fit")
            self.history = [{name: value + 0 for name, value in row.items()} for row in last["history"]]
            columns = {"epoch", "learning_rate", "train_loss", "seconds"}
            columns |= {"val_loss", "f1"} if self.split["validation"] else set()
            if not all(columns <= row.keys() for row in self.history):
                raise ValueError("its history has other columns")
            self.losses = [loss + 0.0 for loss in last["losses"]]
            self.seconds = last["seconds"] + 0.0
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            reason = f"{type(error).__name__}: {reason}"
            raise UserError(
                f"{path}: holds no state to go on from ({reason}); train without --resume"
            ) from None
