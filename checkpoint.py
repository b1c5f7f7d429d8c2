"""Checkpoints: writing them, reading those of strangers without harm, and going on with a training."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import UserError, atomic, did_you_mean, pick_device, versions

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel

    from model import ResUNet, UNet

FORMAT = 2  # raise it when an older program could no longer read a newer file


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write plain tensors, numbers, strings, lists and dicts atomically, the format's version among them.

    Raises:
        UserError: the file cannot be written; an earlier one is as it was.
    """
    import torch

    # torch.save to a file reports a full disk as an error of its own, Python's writing as an OSError
    content = io.BytesIO()
    torch.save({"format": FORMAT, **checkpoint}, content)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_checkpoint(path: Path, device: torch.device) -> tuple[UNet | ResUNet, dict[str, Any]]:
    """Rebuild the network from a checkpoint alone, in evaluation mode on `device`.

    The file may come from a stranger: it cannot run code, nor make the program use more memory than the
    file is large.

    Returns:
        The network and the whole checkpoint: `model` (settings), `weights`, `threshold`, `split`,
        `versions` and what train.py adds.

    Raises:
        UserError: no such file, or not a checkpoint of this program, with the reason.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint{did_you_mean(path)}; train one with: python train.py")
    checkpoint = read_archive(path)
    if not isinstance(checkpoint, dict) or not {"format", "model", "weights"} <= checkpoint.keys():
        raise UserError(f"{path}: a file of another program, not a checkpoint of train.py")
    if type(checkpoint["format"]) is not int or checkpoint["format"] < 1:
        raise UserError(f"{path}: has no valid format number; train it anew")
    if checkpoint["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer version of this program; update it (git pull)")
    threshold = checkpoint.get("threshold")
    if threshold is not None and not (type(threshold) in (int, float) and 0 <= threshold <= 1):
        raise UserError(f"{path}: its threshold is {threshold!r:.40}, not a number from 0 to 1; train it anew")
    model = build(path, checkpoint["model"], checkpoint["weights"])
    return model.to(device, memory_format=torch.channels_last).eval(), checkpoint


def read_archive(path: Path) -> Any:
    """What torch.save wrote to a file, without running any code in it; for errors see `load_checkpoint`."""
    import pickle
    import zipfile

    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            # torch stores without compressing: a file that unpacks to more than its size is meant to harm
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise UserError(f"{path}: compressed, which no checkpoint of train.py is; train one")
            if archive.testzip() is not None:
                raise UserError(f"{path}: damaged (checksums differ); copy or train it anew")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UserError, MemoryError):
        raise
    except zipfile.BadZipFile:
        with path.open("rb") as file:
            what = "cut off or damaged" if file.read(2) == b"PK" else "a file of another program"
        raise UserError(f"{path}: {what}, not a whole checkpoint of train.py; copy or train it anew") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds code or objects besides tensors and numbers; it was not loaded, as it could do harm"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint ({reason}); copy or train it anew") from None


def build(path: Path, config: Any, weights: Any) -> UNet | ResUNet:
    """The network of these settings with these weights, both not to be trusted; see `load_checkpoint`."""
    import torch

    from model import NETWORKS

    try:
        if not isinstance(config, dict):
            raise TypeError
        settings = dict(config)
        network = NETWORKS[settings.pop("name", "unet")]  # files of format 1 do not name it
        if not all(type(value) is int and 1 <= value <= 4096 for value in settings.values()):
            raise ValueError
        if settings["in_channels"] != 3 or settings["out_channels"] != 1 or settings["depth"] > 10:
            raise ValueError
        # shapes without memory: absurd settings cost nothing before the file bears them out
        with torch.device("meta"):
            model = network(**settings)
    except (TypeError, ValueError, KeyError, RuntimeError):
        raise UserError(f"{path}: its settings {config!r:.120} are no network's of this program") from None

    def is_like(found: Any, wanted: torch.Tensor) -> bool:
        return (
            isinstance(found, torch.Tensor)
            and (found.layout, found.device.type) == (torch.strided, "cpu")
            and (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
            # not one number in the file that stands for a gigabyte
            and found.untyped_storage().nbytes() >= found.numel() * found.element_size()
        )

    wanted = model.state_dict()
    # a plain dict: torch hides instructions for loading in an attribute of its own kind of dict
    found = dict(weights) if isinstance(weights, dict) else {}
    misfits = {
        "missing": [n for n in wanted if n not in found],
        "surplus": [n for n in found if n not in wanted],
        "of another shape or type": [n for n in wanted if n in found and not is_like(found[n], wanted[n])],
    }
    if any(misfits.values()):
        words = "; ".join(f"{len(n)} {word}, such as {n[0]!r:.60}" for word, n in misfits.items() if n)
        raise UserError(f"{path}: its weights do not fit its settings ({words}); train it anew")
    if broken := [name for name in wanted if not found[name].isfinite().all()]:
        raise UserError(f"{path}: holds weights that are not finite, such as {broken[0]}; train it anew")
    model.to_empty(device="cpu").load_state_dict(found)
    return model


def find_weights(names: Sequence[str]) -> Path:
    """The weights to use where none are given: the first of these names that is in `files`.

    Raises:
        UserError: neither is there.
    """
    here = Path(__file__).parent
    candidates = [root / "files" / name for name in names for root in (Path(), here)]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"no {' and no '.join(names)} in files; train with: python train.py, or give --weights")


@dataclass
class Training:
    """A network in training, and all that it takes to go on with it.

    Nothing else is random: crops follow from the seed and their number, the learning rate from the step, and
    the network draws nothing.
    """

    settings: dict[str, Any]
    split: dict[str, list[str]]
    model: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    losses: list[float] = field(default_factory=list)  # of the running epoch
    history: list[dict[str, float]] = field(default_factory=list)  # of the epochs before
    seconds: float = 0.0  # trained before this start
    start: float = field(default_factory=time.time)

    @property
    def averaged(self) -> nn.Module:
        """The network that is validated and kept: the average of the weights, where there is one."""
        return self.average.module if self.average else self.model

    @property
    def best(self) -> float:
        """The best validation F1 so far, or -1."""
        return max((row["f1"] for row in self.history if "f1" in row), default=-1.0)

    def elapsed(self) -> float:
        """Seconds trained so far."""
        return self.seconds + time.time() - self.start

    def save(self, path: Path, model: nn.Module, **more: Any) -> None:
        """Write a checkpoint with the weights of `model` and everything that belongs to all checkpoints."""
        common = {"model": model.config, "weights": model.state_dict()}
        own = {"settings": self.settings, "split": self.split, "versions": versions()}
        save_checkpoint(path, {**common, **own, **more})

    def save_last(self, path: Path) -> None:
        """Write last.pth, from which `restore` goes on."""
        average = self.average.state_dict() if self.average else None
        states = {"optimizer": self.optimizer.state_dict(), "average": average}
        self.save(path, self.model, **states, losses=self.losses, history=self.history, seconds=self.elapsed())

    def restore(self, path: Path) -> None:
        """Go on from last.pth.

        Raises:
            UserError: there is no such file, it was trained with other settings or eyes, or it is damaged.
        """
        _, last = load_checkpoint(path, pick_device("cpu"))
        try:
            before = last["settings"]
            if self.settings["minutes"] and before.get("minutes") == self.settings["minutes"]:
                # they were measured when it began
                self.settings |= {name: before[name] for name in ("epochs", "crops")}
            differences = [
                f"--{name.replace('_', '-')} {before.get(name)}, not {value}"
                for name, value in self.settings.items()
                if before.get(name) != value
            ]
            if last["split"] != self.split:
                differences.append("other eyes or another split")
            if differences:
                raise UserError(
                    f"{path}: trained with {'; '.join(differences)}; give --resume with the same settings"
                )
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


OWN = ("last.pth", "checkpoint.pth", "history.csv", "curves.png", "preview.png", "split.json")


def set_aside(files: Path, names: Sequence[str] = OWN, what: str = "training") -> None:
    """Move the files of an earlier training to files/earlier, so that a new one cannot mix with it."""
    own = [files / name for name in names]
    if any(path.exists() for path in own[:2]):
        (files / "earlier").mkdir(exist_ok=True)
        for path in own:
            if path.exists():
                path.replace(files / "earlier" / path.name)
        print(f"{files}: the earlier {what} there was moved to {files / 'earlier'}")
