"""Segment photographs of any size, without labels or field-of-view files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P and PYTHONSAFEPATH=1 leave it out

from anatomy.cameras import look_at_some
from anatomy.photograph import DIAMETER_FLAG
from batch.folders import find_photographs, name_results
from batch.manifest import Weights, write_manifest
from batch.patients import Patients, read_patients
from batch.photographs import Predictor, predict_photographs
from batch.results import ResultsFolder, Rows
from datasets.dicom import IDENTIFIERS
from measures.doubts import CONTRADICTION
from measures.micrometres import read_um_per_pixel
from measures.table import list_doubtful, write_measures
from networks.checkpoints import find_weights
from networks.loading import (
    USUAL_WEIGHTS,
    add_kinds,
    add_prediction_flags,
    add_weights,
    choose_kinds,
    load_kinds,
    load_networks,
    name_weights,
)
from pages.report import write_report
from pages.results import MANIFEST, MEASURES_TABLE, PAGE, PARTS, left_out
from prediction.segmentation import segment as segment  # the documented import of those who call it from Python
from system import processes
from system.devices import describe
from system.records import RECORD
from system.signals import signals_as_interrupts
from utils import HelpFormatter, UserError, between, folder_name, path_name, run


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
    # one each time: more would take the photographs as weights
    default = "files/fundus_unet.pth, else drive_unet.pth, else checkpoint.pth"
    add_weights(parser, f"{default}; give it again for each more", nargs=None)
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
        type=between(16, 100_000),
        metavar="PIXELS",
        help=f"{DIAMETER_FLAG}, also where it goes beyond the frame, as in a close-up of the disc (default: "
        "the scale is found in each)",
    )
    parser.add_argument(
        "--um-per-pixel",
        metavar="NUMBER|CSV",
        help="micrometres that a pixel shows, for widths in micrometres; a CSV has a file name and a number in "
        "each row",
    )
    parser.add_argument(
        "--table",
        type=path_name,
        metavar="CSV",
        help="a file name and any columns in each row, such as patient, eye and visit, which measures.csv then "
        "has too",
    )
    parser.add_argument(
        "--write",
        nargs="+",
        action="extend",
        choices=tuple(PARTS),
        metavar="PART",
        help=f"only these: {', '.join(PARTS)}, for less time and space (default: all). Without outlines "
        "there is no page",
    )
    add_kinds(parser, "with the usual weights")
    parser.add_argument(
        "--dicom-id",
        choices=IDENTIFIERS,
        help="tag of DICOM files that is written as the patient (default: none is copied)",
    )
    add_prediction_flags(parser)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    go_on = processes.describe_resume()
    args.resume |= processes.restarts() > 0
    with signals_as_interrupts(), processes.group(lambda: go_on) as store:
        listing = find_photographs(args.paths, args.out, args.recursive)
        problems = listing.problems
        if listing.photographs:
            try:
                problems += predict_all(listing.photographs, args, store)
            except KeyboardInterrupt:
                if processes.is_main():
                    print(f"{args.out}: what is finished is kept; {go_on}", file=sys.stderr)
                raise
        if not processes.is_main():
            return 0
        if others := list(dict.fromkeys(listing.others)):
            print("\n  ".join([f"other files, left out ({len(others)}):", *others]), file=sys.stderr)
        if problems:
            raise UserError("\n  ".join([f"{len(problems)} could not be segmented:", *problems]))
    return 0


def predict_all(photographs: dict[Path, str], args: argparse.Namespace, store: Any) -> list[str]:
    """Segment the photographs and write their results; return a message for each unusable one.

    Several processes, which have one `store`, share the photographs; rank 0 writes tables and page.
    """
    from tqdm import tqdm

    um_per_pixel = read_um_per_pixel(args.um_per_pixel)
    weights = args.weights or [find_weights(USUAL_WEIGHTS)]
    device = processes.own_device(args.device)
    model, threshold = load_networks(weights, args.threshold, device)
    wanted = args.write or PARTS
    of_kinds = choose_kinds(args, not args.weights) if "arteries_veins" in wanted else None
    kinds = load_kinds(of_kinds, device)
    parts = [part for part in PARTS if part in wanted and (kinds or part != "arteries_veins")]
    flags = {"threshold": threshold, "views": args.views, "diameter": args.diameter, "parts": parts}
    results = ResultsFolder(args.out, weights, um_per_pixel, of_kinds, **flags, dicom_id=args.dicom_id)
    names = name_results(photographs, args.out, results.holds_another)
    patients = read_patients(args.table, names)
    for table in (um_per_pixel, patients.table):
        if (said := table.match(names.values())) and processes.is_main():
            print(said)
    same = "flags, weights or photographs; start all nodes with the same command and the same files"
    processes.check_same([results.made_by, list(names), um_per_pixel], same)
    number, is_main = processes.world_size(), processes.is_main()
    each = f" in each of {number} processes" if number > 1 else ""
    used = name_weights(weights, of_kinds)
    print(f"weights: {used}; device: {describe(device)}{each}; threshold {threshold:.4f}")
    predictor = Predictor(model, threshold, args.views, args.diameter, results, parts, kinds)
    problems: dict[str, str] = {}
    with ExitStack() as stack:
        there = stack.enter_context(results.claimed(names, args.resume)) if is_main else set()
        finished = processes.from_main(there)
        if not (args.out / RECORD).exists():
            raise UserError(f"--out {args.out}: not the folder of rank 0; give one that all machines see")
        if finished:
            print(f"{len(finished)} of {len(names)} photographs are finished already")
        waiting = [name for name in names if name not in finished]
        share = processes.dealt_out(waiting, store)
        made_with = (results.weights, threshold, describe(device), vars(args))
        try:
            if waiting and model.disc and not args.diameter:
                # all of this run, also finished ones: so the scale is the same after --resume
                predictor.cameras, predictor.landmarks = look_at_some(list(names.values()))
            with closing(predict_photographs(names, predictor, problems, share)) as done:
                silent = None if is_main else True  # None: silent only if the output is not a terminal
                for _ in tqdm(done, "predict", len(waiting) // number, unit="photograph", disable=silent):
                    pass  # rank 0 shows how many of its own are done
            problems = {k: v for of_rank in processes.gathered(problems) for k, v in of_rank.items()}
        except BaseException:  # after Ctrl-C, those that are finished get their page too
            with suppress(UserError, OSError):  # of a disk that is full, what was first said counts
                write_tables(results, names, patients, made_with, problems)
            raise
        summary = write_tables(results, names, patients, made_with, problems)
    for name, path in names.items():
        if name != photographs[path]:
            print(f"{path}: called {name} in the results, because its own name was taken")
    print(summary)
    return [problems[name] for name in names if name in problems]


def write_tables(
    results: ResultsFolder,
    names: Mapping[str, Path],
    patients: Patients,
    made_with: tuple[Weights, float, str, dict[str, Any]],
    problems: Mapping[str, str],
) -> str:
    """Write tables and page of all results in the folder, in rank 0; returns what to say of them.

    `names` are the photographs of this run, `problems` those of them that cannot be read; `made_with` are
    weights, threshold, device and flags, see `write_manifest`.
    """
    if not processes.is_main():
        return ""
    out, parts = results.out, results.made_by["parts"]
    hints = {"probability": " (16 bit)", "uncertainty": " (8 bit)"}
    hints["outlines"] = " (vessels blue, field of view orange)"
    folders = [f"{part.replace('_', '/, ')}/{hints.get(part, '')}" for part in parts if PARTS[part]]
    with results.rows(names) as rows:
        said = [f"{out}: {rows.finished} of {len(names)} photographs: {', '.join([*folders, 'records/'])}"]
        guess = "no border of the field of view is visible, so its diameter is a guess; give --diameter, "
        guess += DIAMETER_FLAG
        guessed = [f"{r['photograph']}: {r['diameter']:.0f} pixels" for r in rows if not r["border"]]
        said[:0] = ["\n  ".join([f"{guess}:", *guessed])] if guessed else []
        if against := [str(r["photograph"]) for r in rows if CONTRADICTION in r["doubtful"]]:
            against = [f"{CONTRADICTION} that shows; it decides all the same:", *against]
            print("\n  ".join(against), file=sys.stderr)
        if len(rows):
            notes = patients.join(rows)
            write_measures(out / MEASURES_TABLE, rows, patients.headings)
            write_manifest(out / MANIFEST, *made_with, rows.measured())  # it is passed on: without the table
            (out / PAGE).unlink(missing_ok=True)
            if "outlines" in parts:
                write_page(out, rows, made_with[1], len(problems), len(guessed), notes, left_out(parts))
            results.record_tables()
            said.append(f"{out}: {MEASURES_TABLE}, {MANIFEST}")
            if others := len(rows) - rows.finished:
                listed = f"{others} photographs of earlier runs are listed too"
                said.append(f"{out}: {listed}; made_by says what made each")
            if "outlines" in parts:
                said.append(f"to look through them, open {out / PAGE} in a browser")
            said += filter(None, [list_doubtful(rows, len(rows)), *notes])
    return "\n".join(said)


def write_page(
    out: Path, rows: Rows, threshold: float, unusable: int, guessed: int, said: list[str], hidden: list[str]
) -> None:
    """Write index.html over these results, with what is `said` of them; `hidden` folders were not written."""
    notes = ["No scores: these photographs have no labels.", *said]
    notes += [f"{unusable} more could not be segmented."] if unusable else []
    notes += [f"{guessed} show no border: the diameter of their field of view is a guess."] if guessed else []
    if doubtful := sum(bool(row["doubtful"]) for row in rows):
        notes.append(f"{doubtful} of {len(rows)} are doubtful: they stand first, with the reason.")
    notes.append("Below stands what the measures mean, and how far to trust them.")
    names = [row["image"] for row in rows]
    write_report(out / PAGE, names, threshold, notes, measured=rows, hidden=hidden)


if __name__ == "__main__":
    run(main)
