"""Entry points for torch.hub: the networks with their weights, and an object that segments photographs.

segmenter = torch.hub.load(".", "segmenter", source="local")    # or "OWNER/REPO" on GitHub
result = segmenter("eye.jpg")
result.probability, result.mask, result.fov
"""

from __future__ import annotations

import contextlib
import copyreg
import dataclasses
import functools
import pathlib
import pickle
import sys
import threading
from typing import TYPE_CHECKING

# torch.hub.list shows every public name that can be called: only the entry points are
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType
    from typing import Any

    import numpy as np

    from model import Network
    from prediction.segmenter import Segmentation

dependencies = ["torch", "numpy", "cv2", "PIL"]  # torch.hub checks that they are installed

ROOT = pathlib.Path(__file__).resolve().parent
FILES = ROOT / "files"
MODULES = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
# the modules of this repository, while the caller's have their names; torch.hub runs this file at every call
_STORE = sys.modules.setdefault(f"modules of {ROOT}", type(sys)("modules"))
LOADED: dict[str, ModuleType] = vars(_STORE).setdefault("loaded", {})
LOCK = threading.RLock()


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Import this repository's modules by their names, and afterwards give the names back.

    The caller may have a utils.py, data.py or model.py too, imported before or after.
    """

    def take() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in MODULES}

    with LOCK:
        theirs = take()
        # in a script of this repository they are the same modules: a second copy would have other classes
        files = {name: getattr(module, "__file__", None) or "" for name, module in theirs.items()}
        same = {name: theirs[name] for name in files if pathlib.Path(files[name]).is_relative_to(ROOT)}
        sys.modules.update(LOADED | same)
        sys.path.insert(0, str(ROOT))
        try:
            yield
        finally:
            sys.path.remove(str(ROOT))
            LOADED.update(take())
            sys.modules.update(theirs)


def fundus_unet(pretrained: bool = True) -> Network:
    """U-Net trained on photographs of several cameras: images (N, 3, H, W) -> logits (N, 1, H, W).

    Any H and W from 1 up. Images are photographs as `datasets.images.normalize` makes them; `segmenter` does
    that, and more.

    Args:
        pretrained: with its weights, in evaluation mode; else the same network with random ones.
    """
    return _load("fundus_unet.pth", pretrained)


def drive_unet(pretrained: bool = True) -> Network:
    """U-Net trained on DRIVE alone; arguments and result as of `fundus_unet`."""
    return _load("drive_unet.pth", pretrained)


def _load(name: str, pretrained: bool) -> Network:
    """Build a shipped network, on the CPU."""
    with _own_modules():
        from model import NETWORKS
        from networks.checkpoints import load_checkpoint
        from utils import UserError

        path = FILES / name
        if not path.is_file():
            where = "not in this copy of the repository"
            raise UserError(f"{path}: {where}; update it, or use another entry point")
        network, _ = load_checkpoint(path)
        if pretrained:
            return network
        settings = dict(network.config)
        return NETWORKS[settings.pop("name")](**settings)


def _from_hub(name: str, **settings: Any) -> functools.partial[Any]:
    """How to call a function of this file in another process."""
    import torch

    return functools.partial(torch.hub.load, str(ROOT), name, source="local", **settings)


def _reduce(result: Segmentation) -> tuple[Any, ...]:
    """How a result is pickled: another process imports its classes from here."""
    with _own_modules():
        given = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        return _from_hub("_restore"), (pickle.dumps(given),)


def _restore(parts: bytes) -> Segmentation:
    """Make a result of what `_reduce` gave."""
    with _own_modules():
        from prediction.segmenter import Segmentation

        return Segmentation(**pickle.loads(parts))


class segmenter:  # noqa: N801, an entry point is called by its name
    """Segments photographs: `segmenter(path)`, or of an array, uint8 (H, W, 3) RGB of any size.

    The result has `probability`, float32 (H, W) in [0, 1]; `mask` and `fov` (field of view), uint8 (H, W), 0 or
    255; `photograph`; and `threshold`, which can be set for another mask. It is what predict.py finds. With
    arteries_veins=True it also has `kinds`: `kinds.masks["arteries"]` and `["veins"]`, uint8 (H, W), 0 or 255,
    and the probabilities `kinds.artery` and `kinds.vein`, uint8 (H, W).

    Args:
        settings: of `prediction.segmenter.Segmenter`, such as views=1: 1, 2, 4 or 8 flips and turns are
            averaged, fewer a little worse and as much faster; or weights, threshold, device.
    """

    def __init__(self, **settings: Any) -> None:
        with _own_modules():
            from networks.checkpoints import find_weights
            from networks.loading import KINDS_WEIGHTS, USUAL_WEIGHTS
            from prediction.segmenter import Segmentation, Segmenter

            # of this repository, whatever folder it is called from
            if settings.get("weights") is None:
                settings["weights"] = find_weights(USUAL_WEIGHTS, [ROOT])
            if settings.get("arteries_veins") is True:
                settings["arteries_veins"] = find_weights(KINDS_WEIGHTS, [ROOT])
            self.settings = settings
            self.segmenter = Segmenter(**settings)
            copyreg.pickle(Segmentation, _reduce)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, as for other processes, it is how to load it again: its modules are known to no other."""
        return _from_hub("segmenter", **self.settings), ()

    def __call__(self, photograph: str | Path | np.ndarray) -> Segmentation:
        with _own_modules():
            return self.segmenter(photograph)
