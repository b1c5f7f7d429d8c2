"""What an earlier training left in the folder of a new one: kept whole, in FILES/earlier/1 and so on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from system.records import check_record, read_record, refuse_loss, write_record

OWN = ("last.pth", "checkpoint.pth", "history.csv", "curves.png", "preview.png", "split.json")
MOVING = ".moving"  # in FILES/earlier: a generation on its way


def check_own(files: Path, names: Sequence[str] = OWN) -> None:
    """Raise UserError if FILES has files of a training's names that train.py did not write."""
    recorded = check_record("train.py", "--files", files).files
    strangers = [files / name for name in names if (files / name).is_file() and name not in recorded]
    refuse_loss("train.py", "--files", files, strangers)


def list_own(files: Path, names: Sequence[str] = OWN) -> None:
    """Write down that the files of a training in FILES are those of train.py."""
    write_record(files, "train.py", {*names, *read_record(files).files}, written=False)


def move_to_earlier(files: Path, names: Sequence[str] = OWN) -> None:
    """Move an earlier training to FILES/earlier/1, or the next free number, so that nothing is mixed."""
    earlier = files / "earlier"
    moving = earlier / MOVING
    for name in names:
        if (files / name).is_file():
            (moving / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).rename(moving / name)
    if moving.exists():
        target = earlier / str(max(generations(files), default=0) + 1)
        moving.rename(target)
        print(f"{files}: the earlier training there was moved to {target}")


def generations(files: Path) -> list[int]:
    """The numbers of the earlier trainings that FILES/earlier holds."""
    folder = files / "earlier"
    return [int(f.name) for f in folder.iterdir() if f.name.isdecimal()] if folder.is_dir() else []


def without_checkpoint(files: Path) -> str:
    """What a training that was stopped before its first checkpoint.pth should say; empty if there is one."""
    if (files / "checkpoint.pth").exists() or not (files / "last.pth").is_file():
        return ""
    places = [files / "earlier" / str(number) / "checkpoint.pth" for number in sorted(generations(files))]
    such = [f", such as {path}" for path in places if path.is_file()][-1:]
    return (
        f"{files}: no checkpoint.pth before an epoch has ended; till then give test.py --weights{''.join(such)}"
    )


def undo_move(files: Path) -> None:
    """Move back what a killed `move_to_earlier` had on its way: the new training was not in place yet."""
    moving = files / "earlier" / MOVING
    if moving.is_dir():
        for path in sorted(moving.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            else:
                back = files / path.relative_to(moving)
                back.parent.mkdir(parents=True, exist_ok=True)
                path.rename(back)
        moving.rmdir()
