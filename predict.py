"""Segment photographs of any size, without labels or field-of-view files."""

from __future__ import annotations

import argparse
import glob
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from batch.folders import find_photographs, name_results
from batch.journal import Journal, fingerprint
from batch.manifest import write_manifest
from batch.photographs import FOLDERS, Outcome, Predictor, predict_photographs
from measures.table import read_um_per_pixel, summarize, write_measures
from networks.checkpoints import find_weights
from networks.loading import USUAL_WEIGHTS, load_networks, parse_prediction_args
from pages.report import write_report
from pages.results import result_files
from prediction.segmentation import segment as segment  # the documented import of those who call it from Python
from system import processes
from system.devices import describe
from system.ownership import own_results
from utils import HelpFormatter, UserError, folder_name, path_name, run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Segment photographs of the retina; no labels, no field-of-view files needed. Writes "
        "to OUT: masks/, probability/ (16 bit), uncertainty/, outlines/ (vessels on the photograph), "
        "measures.csv, predict.json, and index.html to look through them.",
        epilog="example: python predict.py my_photographs eye.jpg --out results/mine",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "paths", type=path_name, nargs="+", metavar="PATH", help="a photograph, or a folder of them"
    )
    parser.add_argument(
        "--weights",
        type=path_name,
        action="append",  # nargs='+' would take the photographs as weights
        help="a checkpoint; give it again for each more whose probabilities are to be averaged (default: "
        "files/fundus_unet.pth, else drive_unet.pth, else checkpoint.pth)",
    )
    parser.add_argument("--out", type=folder_name, default=Path("results/predict"), help="folder to write")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on after a run that was ended: photographs whose results are whole, made by the same weights "
        "and flags, are not segmented again",
    )
    parser.add_argument(
        "--recursive",
        action="store_true",
        help="look into folders inside the folders, too; results lie in folders of the same names",
    )
    parser.add_argument(
        "--diameter",
        type=float,
        metavar="PIXELS",
        help="of the whole field of view in these photographs, also where it goes beyond the frame, as in a "
        "close-up of the disc (default: found in each)",
    )
    parser.add_argument(
        "--um-per-pixel",
        metavar="NUMBER|CSV",
        help="micrometres that a pixel shows, for widths in micrometres; a CSV has a file name and a number in "
        "each row",
    )
    args = parse_prediction_args(parser)
    if args.diameter is not None and not 16 <= args.diameter <= 100_000:
        parser.error(f"--diameter {args.diameter:g}: give 16 to 100000 pixels")
    return args


def main() -> int:
    args = parse_args()
    again = [*processes.launcher(), *sys.argv, *([] if args.resume else ["--resume"])]
    args.resume |= processes.restarts() > 0
    with processes.group(lambda: f"go on with: {shlex.join(again)}") as store:
        found = find_photographs(args.paths, args.out, args.recursive)
        names, problems = name_results(found.photographs, args.out), found.problems
        if names:
            problems += predict_all(names, args, store)
        for name, path in names.items():
            if name != found.photographs[path]:
                print(f"{path}: called {name} in the results, because its own name was taken")
        if not processes.is_main():
            return 0
        if others := list(dict.fromkeys(found.others)):
            print("\n  ".join([f"{len(others)} other files were left out:", *others]), file=sys.stderr)
        if problems:
            raise UserError("\n  ".join([f"{len(problems)} could not be segmented:", *problems]))
    return 0


def predict_all(names: dict[str, Path], args: argparse.Namespace, store: Any) -> list[str]:
    """Segment the photographs and write their results; return a message for each unusable one.

    Several processes, which have one `store`, share the photographs; rank 0 writes tables and page.
    """
    um_per_pixel = read_um_per_pixel(args.um_per_pixel)
    weights = args.weights or [find_weights(USUAL_WEIGHTS)]
    device = processes.own_device(args.device)
    model, threshold = load_networks(weights, args.threshold, device)
    number = processes.world_size()
    each = f" in each of {number} processes" if number > 1 else ""
    print(
        f"weights: {', '.join(map(str, weights))}; device: {describe(device)}{each}; threshold {threshold:.4f}"
    )
    predictor = Predictor(model, threshold, args.tta, args.diameter, args.out, um_per_pixel)
    settings = {"threshold": threshold, "tta": args.tta, "diameter": args.diameter, "um": um_per_pixel}
    journal = Journal(args.out, fingerprint(weights, **settings), processes.rank())
    outcome, problems, guessed, whole = Outcome(journal.add), {}, [], False
    same = "flags, weights or photographs; start all nodes with the same command and the same files"
    processes.check_same([journal.made_by, list(names)], same)
    with own_folder(args, names, journal):
        waiting = [name for name in names if name not in journal.finished]
        share = processes.dealt_out(waiting, store)
        try:
            with closing(predict_photographs(names, predictor, outcome, share)) as done:
                follow(done, len(waiting))
            problems = {k: v for found in processes.gathered(outcome.problems) for k, v in found.items()}
            whole = True
        finally:  # after Ctrl-C, those that are finished get their page too
            if processes.is_main():
                journal.end(names, keep=not whole)
                guessed = [row for row in journal if not row["border"] and args.diameter is None]
                if journal.finished:
                    write_measures(args.out / "measures.csv", journal)
                    what_made = (weights, threshold, describe(device), vars(args), journal)
                    write_manifest(args.out / "predict.json", *what_made)
                    write_page(args.out, journal, threshold, len(problems or outcome.problems), len(guessed))
    if not processes.is_main():
        return []
    if guessed:
        guess = "no border of the field of view is visible, so its diameter is a guess; give it with --diameter"
        lines = [f"{row['photograph']}: {row['diameter']:.0f} pixels" for row in guessed]
        print("\n  ".join([f"{guess}:", *lines]))
    what = "photographs: outlines/ (vessels blue, field of view orange), masks/, probability/ (16 bit)"
    print(f"{args.out}: {len(journal)} of {len(names)} {what}")
    if journal.finished:
        print(f"{args.out}: uncertainty/ (8 bit), measures.csv, predict.json")
        print(f"to look through them, open {args.out / 'index.html'} in a browser")
        if doubtful := summarize(journal, len(journal)):
            print(doubtful)
    return [problems[name] for name in names if name in problems]


@contextmanager
def own_folder(args: argparse.Namespace, names: Mapping[str, Path], journal: Journal) -> Iterator[None]:
    """Claim --out and begin the journal in rank 0; the others wait, and learn what is finished already."""
    number = processes.world_size()
    with ExitStack() as stack:
        if processes.is_main():
            files = ["index.html", "measures.csv", "predict.json", journal.path.name]
            files += [f"finished-{rank}.jsonl" for rank in range(1, number)]
            files += [part.name for part in journal.parts()]  # of an earlier run
            for name in names:
                files += result_files(name)
            places = {glob.escape(Path(name).parent.as_posix()) for name in names}
            parts = [f"{part}/{place}" for part in (*FOLDERS, "page/*") for place in places]
            own = own_results(
                "predict.py", "--out", args.out, files, *parts, keep=args.resume, alone=number == 1
            )
            stack.enter_context(own)
            journal.begin(names, args.resume)
            if journal.finished:
                print(f"{len(journal)} of {len(names)} photographs are finished already")
        journal.finished = processes.from_main(journal.finished)
        if not journal.path.exists():
            raise UserError(f"--out {args.out}: not the folder of rank 0; give one that all machines see")
        yield


def follow(done: Iterable[str], number: int) -> None:
    """Show how many photographs are done; rank 0 shows its own."""
    from tqdm import tqdm

    silent = None if processes.is_main() else True  # None: silent only if the output is not a terminal
    for _ in tqdm(done, "predict", number // processes.world_size(), unit="photograph", disable=silent):
        pass


def write_page(out: Path, rows: Journal, threshold: float, unusable: int, guessed: int) -> None:
    """Write index.html over the results of these photographs."""
    notes = ["No scores: these photographs have no labels."]
    notes += [f"{unusable} more could not be segmented."] if unusable else []
    notes += [f"{guessed} show no border: the diameter of their field of view is a guess."] if guessed else []
    if doubtful := sum(bool(row["doubtful"]) for row in rows):
        notes.append(f"{doubtful} of {len(rows)} are doubtful: they stand first, with the reason.")
    notes.append(
        "docs/measures.md says how far to trust each measure. Programs that find arteries, veins and the optic "
        "disc take these masks for the rest: CRAE, CRVE, AVR, zones."
    )
    names = [row["image"] for row in rows]
    write_report(out / "index.html", names, threshold, notes, measured=rows)


if __name__ == "__main__":
    run(main)
