"""Checkpoint files: write them atomically, read them safely."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import eye_of
from datasets.field_of_view import DIAMETER
from system.files import atomic
from utils import UserError, did_you_mean, explain

if TYPE_CHECKING:
    import torch

    from model import ResUNet, UNet


MAX_WIDTH, MAX_DEPTH = 4096, 10  # of a network: larger ones are neither trained nor loaded
VESSELS = ("vessels",)  # what a network finds, one name an output; files of vessel networks do not say it
KINDS = ("artery", "vein")
FORMAT = 2  # raise it when older versions can no longer read a new file


def save_checkpoint(
    path: Path, checkpoint: dict[str, Any], before: Callable[[], None] | None = None, compressed: bool = False
) -> None:
    """Write a checkpoint of plain tensors, numbers, strings, lists and dicts atomically.

    `before` is called when all of it is on the disk, before it is put in place. `compressed` files are a tenth
    smaller and load a little more slowly.

    Raises:
        UserError: the file cannot be written; an earlier one is unchanged.
    """
    import torch

    # torch.save reports a full disk as an error of its own; writing from Python raises OSError
    content = io.BytesIO()
    torch.save({"format": FORMAT, **checkpoint}, content)
    if compressed:  # torch stores what it writes, and reads what any program compressed
        stored, content = zipfile.ZipFile(content), io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
            for info in stored.infolist():
                packed.writestr(zipfile.ZipInfo(info.filename), stored.read(info), zipfile.ZIP_DEFLATED, 9)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getbuffer())
        if before:
            before()


def halved(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights with 16 bits, which `load_checkpoint` reads as they are; nothing can go on training from them."""
    return {n: value.half() if value.is_floating_point() else value for n, value in weights.items()}


def load_checkpoint(
    path: Path, device: torch.device | str = "cpu", outputs: Sequence[str] | None = VESSELS
) -> tuple[UNet | ResUNet, dict[str, Any]]:
    """Rebuild the network from a checkpoint alone, in evaluation mode on `device`.

    The file may be untrusted: it cannot run code or allocate more memory than its size.

    Args:
        path: written by `save_checkpoint`.
        device: where the network is to compute.
        outputs: what its channels must find; the file names them as `outputs`. None: what train.py trains,
            vessels or their kinds.

    Returns:
        The network and the whole checkpoint: `model` (settings), `weights`, `threshold`, `split`,
        `versions` and what train.py adds.

    Raises:
        UserError: the file is missing or not a checkpoint of this program; the message says why.
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
    # the last two in pixels; files may lack all three
    ranges = (("threshold", 0, 1, None), ("diameter", 64, 8192, DIAMETER), ("disc", 16, 1024, None))
    for name, low, high, default in ranges:
        value: Any = checkpoint.get(name, default)
        if value is not default and not (type(value) in (int, float) and low <= value <= high):
            raise UserError(f"{path}: its {name} is {value!r:.40}, not from {low} to {high}; train it anew")
    finds = checkpoint.get("outputs", list(VESSELS))
    wanted = (VESSELS, KINDS) if outputs is None else (tuple(outputs),)
    if finds not in map(list, wanted):
        what = " and ".join(finds) if is_names(finds) else f"{finds!r:.40}"
        asked = " or ".join(" and ".join(names) for names in wanted)
        raise UserError(f"{path}: a network that finds {what}, not {asked}; give another file")
    model = build(path, checkpoint["model"], checkpoint["weights"], len(finds))
    model.outputs = tuple(finds)
    model.diameter, model.disc = checkpoint.get("diameter", DIAMETER), checkpoint.get("disc")
    model.trained_on = trained_eyes(checkpoint)
    settings = checkpoint.get("settings")
    share = settings.get("clahe") if isinstance(settings, dict) else None
    model.clahe = isinstance(share, (int, float)) and share > 0
    return model.to(device).to(memory_format=torch.channels_last).eval(), checkpoint


def trained_eyes(checkpoint: dict[str, Any]) -> frozenset[str]:
    """The names of the eyes that trained a checkpoint or chose its epoch; empty where none is noted."""
    split = checkpoint.get("split")
    sides = [split.get(side) for side in ("train", "validation")] if isinstance(split, dict) else []
    sides.append(checkpoint.get("started_from"))
    names = [name for side in sides if isinstance(side, list) for name in side]
    return frozenset(eye_of(name) for name in names if isinstance(name, str))


def read_archive(path: Path) -> Any:
    """Read what torch.save wrote without running code in the file; errors as in `load_checkpoint`."""
    import pickle

    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            # weights hardly shrink: a file that unpacks to much more than its size is an attack
            if sum(part.file_size for part in archive.infolist()) > 1.5 * path.stat().st_size:
                raise UserError(f"{path}: compressed more than any checkpoint of train.py; train one")
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
        raise UserError(explain(error, path, "not a readable checkpoint", "copy or train it anew")) from None


def is_names(value: Any) -> bool:
    """Whether a value of an untrusted file is a short list of words."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= 4
        and all(isinstance(name, str) and name.isidentifier() and len(name) <= 20 for name in value)
    )


def build(path: Path, config: Any, weights: Any, outputs: int) -> UNet | ResUNet:
    """Build a network from untrusted settings and weights; errors as in `load_checkpoint`."""
    import torch

    from model import NETWORKS

    try:
        if not isinstance(config, dict):
            raise TypeError
        settings = dict(config)
        network = NETWORKS[settings.pop("name", "unet")]  # files of format 1 do not name it
        if not all(type(value) is int and 1 <= value <= MAX_WIDTH for value in settings.values()):
            raise ValueError
        if (settings["in_channels"], settings["out_channels"]) != (3, outputs) or settings["depth"] > MAX_DEPTH:
            raise ValueError
        # shapes without memory: absurd settings cost nothing
        with torch.device("meta"):
            model = network(**settings)
    except (TypeError, ValueError, KeyError, RuntimeError):
        raise UserError(f"{path}: its settings {config!r:.120} are no network's of this program") from None

    def is_like(found: Any, wanted: torch.Tensor) -> bool:
        return (
            isinstance(found, torch.Tensor)
            and (found.layout, found.device.type) == (torch.strided, "cpu")
            and found.shape == wanted.shape
            and (found.dtype == wanted.dtype or (found.dtype, wanted.dtype) == (torch.float16, torch.float32))
            # not one number expanded to a gigabyte
            and found.untyped_storage().nbytes() >= found.numel() * found.element_size()
        )

    wanted = model.state_dict()
    # a plain dict: torch keeps loading instructions in an attribute of its own dict
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
    # assigned, because making empty ones of the meta device imports a second's worth of modules
    own = {"copy": True, "memory_format": torch.contiguous_format}
    model.load_state_dict(
        {name: found[name].to(like.dtype, **own) for name, like in wanted.items()}, assign=True
    )
    return model


HERE = Path(__file__).parent.parent


def find_weights(names: Sequence[str], roots: Sequence[Path] = (Path(), HERE), flag: str = "--weights") -> Path:
    """The default of a `flag`: the first of these names that exists in the `files` of one of these folders.

    Raises:
        UserError: none of them exists.
    """
    candidates = [root / "files" / name for name in names for root in roots]
    for path in candidates:
        if path.is_file():
            return path
        begun = path.with_name("last.pth").is_file() or path.with_name("earlier").is_dir()
        if path.name == "checkpoint.pth" and begun:  # other weights would be scored without a word
            raise UserError(
                f"{path}: not there yet, the training in this folder has not come so far; wait for it, or give "
                "--weights, such as files/drive_unet.pth or one of files/earlier"
            )
    raise UserError(f"no {' and no '.join(names)} in files; train with: python train.py, or give {flag}")
