"""What every script needs: errors for users, the device, seeds, whole files, checkpoints."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from model import UNet

# torch takes seconds to import, so it is imported where it is used: --help and augment.py need none of it.

FORMAT = 1  # of the checkpoint; raise it when an older program could no longer read a newer file


class UserError(Exception):
    """Something the user can put right; the message names the file, what is wrong and what to do."""


def run(main: Callable[[], int | None]) -> None:
    """Run a script: errors for the user become one line on stderr and exit status 2, without a traceback."""
    script = Path(sys.argv[0]).name
    sys.stdout.reconfigure(line_buffering=True)  # so that a log file can be followed
    try:
        sys.exit(main())
    except UserError as error:
        print(f"{script}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\n{script}: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"{script}: {where}{error.strerror or error}", file=sys.stderr)
    sys.exit(2)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place at the end, or vanishes after an error.

    A reader of `path`, or a program killed meanwhile, finds the whole old file or the whole new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        # mkstemp makes files for the owner alone; results are as readable as any other file
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    """Write plain tensors, numbers, strings, lists and dicts atomically, the format's version among them."""
    import torch

    with atomic(path) as temporary:
        torch.save({"format": FORMAT, **checkpoint}, temporary)


def load_checkpoint(path: Path, device: torch.device) -> tuple[UNet, dict[str, Any]]:
    """Rebuild the network from a checkpoint alone, in evaluation mode on `device`.

    Returns:
        The network and the whole checkpoint: `model` (settings), `weights`, `threshold`, `split`,
        `versions` and what train.py adds.

    Raises:
        UserError: no such file, or not a checkpoint of this program.
    """
    import torch

    from model import UNet

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; train one with: python train.py")
    try:
        # weights_only: a checkpoint from a stranger must not run code
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise UserError(f"{path}: not a readable checkpoint ({reason}); train it anew") from None
    if not isinstance(checkpoint, dict) or not {"format", "model", "weights"} <= checkpoint.keys():
        raise UserError(f"{path}: a file of another program, not a checkpoint of train.py")
    if checkpoint["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer version of this program; update it (git pull)")
    try:
        model = UNet(**checkpoint["model"])
        model.load_state_dict(checkpoint["weights"])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: its weights do not fit its settings ({reason})") from None
    if not all(w.isfinite().all() for w in model.state_dict().values()):
        raise UserError(f"{path}: holds weights that are not finite; train it anew")
    return model.to(device, memory_format=torch.channels_last).eval(), checkpoint
