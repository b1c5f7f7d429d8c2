"""What every script needs: errors for users, the device, seeds, whole files, checkpoints."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import platform
import random
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from model import UNet

# torch takes seconds to import, so it is imported where it is used: --help and augment.py need none of it.

FORMAT = 1  # of the checkpoint; raise it when an older program could no longer read a newer file
UNFINISHED = ".unfinished-"  # begins the name of a file that is being written


class UserError(Exception):
    """Something the user can put right; the message names the file, what is wrong and what to do."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds to each flag's help its default, unless that says nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def run(main: Callable[[], int | None], lower: str = "") -> None:
    """Run a script: errors for the user become one line on stderr and exit status 2, without a traceback.

    `lower` names the flags that save memory, for the line to print when there is not enough.
    """
    script = Path(sys.argv[0]).name
    # line by line, so that a log file can be followed; a name that the console cannot show is no error
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image is said in a UserError
    status = 2
    try:
        sys.exit(main())
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except Exception as error:
        if out_of_memory(error):
            message = f"out of memory; {f'lower {lower}, or ' if lower else ''}end other programs"
        elif isinstance(error, OSError) and error.strerror:
            message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        else:
            raise
    # a name could hold codes that command the terminal
    message = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    print(f"{script}: {message}", file=sys.stderr)
    sys.exit(status)


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: Python, torch on each of its devices, and OpenCV all say it in another way."""
    signs = ("out of memory", "not enough memory", "allocate memory", "insufficient memory")
    signs += ("out of shared memory", "killed by signal: killed")  # of a DataLoader's worker
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)


def did_you_mean(path: Path) -> str:
    """A hint at the existing name that is nearest to the first missing part of a path, or nothing."""
    for part in (path, *path.parents):
        if part.parent.is_dir():
            there = {file.name.casefold(): file for file in part.parent.iterdir()}
            near = difflib.get_close_matches(part.name.casefold(), there, n=1)
            return f"; did you mean {there[near[0]]}?" if near else ""
    return ""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place at the end, or vanishes after an error.

    A reader of `path`, or a program killed meanwhile, finds the whole old file or the whole new one.

    Raises:
        UserError: the file cannot be written: a full disk, say, or a folder that is read-only.
    """
    path = Path(path)
    # the end of the name is kept: Matplotlib chooses the format by it
    temporary = path.parent / f"{UNFINISHED}{secrets.token_hex(4)}-{path.name[-40:]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); an earlier file is as it was") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def claim(folder: Path, *parts: str) -> Iterator[None]:
    """Hold `folder` for writing by this process alone; remove what a killed one left there and in `parts`.

    `parts` are patterns of folders inside it, such as page/*.

    The operating system holds the lock and drops it when the process ends in whatever way, so that none is
    ever left behind.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    with file:
        if not lock(file) or not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.seek(0)
            number = file.read(20).decode(errors="replace").strip() or "(unknown)"
            raise UserError(
                f"{folder}: process {number} is writing there; wait for its end, or choose another folder"
            )
        try:
            with contextlib.suppress(OSError):  # the number is for the message alone; a full disk may lack it
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
            for part in (".", *parts):
                for leftover in folder.glob(f"{part}/{UNFINISHED}*"):
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            # removed while it is held: whoever opened it just before sees above that it is gone
            with contextlib.suppress(OSError):
                path.unlink()


def lock(file: IO[bytes]) -> bool:
    """Lock an open file for this process, without waiting; False if another process has it."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(
                file.fileno(), 1 << 30, os.SEEK_SET
            )  # a byte far off: Windows lets nobody read a locked one
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # lockf, not flock: the latter would live on in the DataLoader's workers after a kill
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks: better to go on unprotected than not at all
    return True


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(name: str = "auto") -> torch.device:
    """Turn auto, cpu, cuda, cuda:1 or mps into a device that is there; auto prefers cuda, then mps.

    Raises:
        UserError: the device is not there.
    """
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such device; use auto, cpu, cuda or mps") from None
    there = {"cpu": True, "cuda": has_cuda, "mps": has_mps}.get(device.type, False)
    if there and device.type == "cuda" and device.index is not None:
        there = device.index < torch.cuda.device_count()
    if not there:
        raise UserError(f"--device {name}: this device is not available here; use --device cpu")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16; emulated it is slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # no public name for this question yet; without an answer float32 is right, only slower
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return False


def autocast(device: torch.device) -> torch.autocast | contextlib.nullcontext:
    """The context to run the network in: bfloat16 where the hardware has it, else float32."""
    import torch

    if not has_bfloat16(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe(device: torch.device) -> str:
    """The device in words, e.g. 'cpu (2 threads, bfloat16)'."""
    import torch

    number = "bfloat16" if has_bfloat16(device) else "float32"
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}, {number})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads, {number})"
    return f"{device} ({number})"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    import cv2
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of its own, which weights_only refuses
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


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


def load_checkpoint(path: Path, device: torch.device) -> tuple[UNet, dict[str, Any]]:
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


def build(path: Path, config: Any, weights: Any) -> UNet:
    """The network of these settings with these weights, both not to be trusted; see `load_checkpoint`."""
    import torch

    from model import UNet

    valid = isinstance(config, dict) and all(type(v) is int and 1 <= v <= 4096 for v in config.values())
    try:
        if not valid or config["in_channels"] != 3 or config["out_channels"] != 1 or config["depth"] > 10:
            raise ValueError
        # shapes without memory: absurd settings cost nothing before the file bears them out
        with torch.device("meta"):
            model = UNet(**config)
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
