"""The state of a training: save it, resume it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from networks.checkpoints import KINDS, halved, load_checkpoint, save_checkpoint
from training.settings import Settings, no_state
from utils import UserError, versions

if TYPE_CHECKING:
    import torch
    from torch.optim.swa_utils import AveragedModel

    from model import Network


@dataclass
class Training:
    """The network in training and everything needed to resume it.

    No random state is needed: crops follow from the seed and their number, the learning rate from the step, and
    the network has no dropout.
    """

    settings: Settings
    split: dict[str, list[str]]
    model: Network
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    losses: list[float] = field(default_factory=list)  # of the running epoch
    history: list[dict[str, float]] = field(default_factory=list)  # of the epochs before
    seconds: float = 0.0  # trained before this start
    start: float = field(default_factory=time.time)
    started_from: list[str] = field(default_factory=list)  # eyes that trained the network it started from
    start_f1: float = -1.0  # of that network on the validation eyes, if it had not seen them
    pixels: str = ""  # `digest` of the eyes
    make_room: Callable[[], None] | None = None  # moves an earlier training away, before the first file

    @property
    def averaged(self) -> Network:
        """The network to validate and keep: with averaged weights, if there are any."""
        return cast("Network", self.average.module) if self.average else self.model

    @property
    def best(self) -> float:
        """The best validation F1 so far, or -1."""
        return max([self.start_f1, *(row["f1"] for row in self.history if "f1" in row)])

    def elapsed(self) -> float:
        """Seconds trained so far."""
        return self.seconds + time.time() - self.start

    def save(self, path: Path, model: Network, **more: Any) -> None:
        """Write a checkpoint with the weights of `model` and what all checkpoints contain."""
        weights = model.state_dict()
        # half the size, and nothing goes on from it
        is_small = model.outputs == KINDS and "optimizer" not in more
        content: dict[str, Any] = {"model": model.config, "weights": halved(weights) if is_small else weights}
        content |= {"settings": asdict(self.settings), "split": self.split}
        content |= {"diameter": model.diameter, "disc": model.disc, "versions": versions()}
        content |= {"started_from": self.started_from, "outputs": list(model.outputs), **more}
        save_checkpoint(path, content, self.make_room, compressed=is_small)
        self.make_room = None

    def save_last(self, path: Path) -> None:
        """Write last.pth, from which `restore` resumes."""
        average = self.average.state_dict() if self.average else None
        own: dict[str, Any] = {"optimizer": self.optimizer.state_dict(), "average": average}
        own |= {"losses": self.losses, "history": self.history}
        own |= {"seconds": self.elapsed(), "start_f1": self.start_f1, "pixels": self.pixels}
        self.save(path, self.model, **own)

    def restore(self, path: Path) -> None:
        """Resume from last.pth, whose settings `training.settings.read_settings` has read.

        Raises:
            UserError: the file is missing or damaged, or belongs to other eyes.
        """
        _, last = load_checkpoint(path, outputs=self.model.outputs)
        if last.get("split") != self.split:
            raise UserError(
                f"{path}: trained with other eyes or another split; give --resume with the same eyes and flags"
            )
        if last.get("pixels", self.pixels) != self.pixels:
            changed = "pixels or labels of its eyes have changed since"
            raise UserError(f"{path}: {changed}; bring back the old --data, or begin anew without --resume")
        try:
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
            self.start_f1 = last.get("start_f1", -1.0) + 0.0
            self.started_from = list(last.get("started_from", []))
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise no_state(path, error) from None
