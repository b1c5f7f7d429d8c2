"""Train without some eyes and predict those, in turn: by fold, or by data set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from anatomy.cameras import some_of
from anatomy.photograph import look_at
from data import eye_of, first_copies, person_of, read_info, split_taught
from datasets.eyes import Eye
from datasets.images import read_levels, write_png
from networks.checkpoints import load_checkpoint
from prediction.scale import cameras_for, plan_scale
from prediction.segmentation import outputs_of, segment
from scoring import metrics
from system.files import claim
from training.earlier import check_own
from training.held_out_tables import Group, probability_of, score_groups, write_data_sets, write_folds
from training.loop import train
from training.settings import Run, Settings, outputs_trained, read_settings
from training.start import Move, Split, plan_move
from training.thresholds import compromise_curve, native_eyes, threshold_of_best
from utils import UserError

Read = Callable[[Sequence[str]], Iterable[Eye]]  # the eyes of these copies, as they are to be predicted


def group_by_fold(names: Sequence[str], folds: int) -> list[Group]:
    """Deal the eyes out in order: fold k holds out eyes k, k + folds and so on, with all their copies.

    Both eyes of a person stay together (`data.person_of`).

    Raises:
        UserError: more folds than persons.
    """
    persons = list(dict.fromkeys(map(person_of, names)))
    if folds > len(persons):
        eyes = f"{len(persons)} labelled eyes of different persons"
        raise UserError(f"--folds {folds}: there are only {eyes}, and each fold needs one")
    fold_of = {person: i % folds for i, person in enumerate(persons)}
    return [
        Group(f"fold {k}", f"fold{k}", [name for name in names if fold_of[person_of(name)] == k])
        for k in range(folds)
    ]


def group_by_data_set(data: Path, eyes: Mapping[str, Eye], wanted: Sequence[str]) -> list[Group]:
    """Group eyes by their `source`.

    Raises:
        UserError: fewer than two data sets, or none of a name in `wanted`.
    """
    sets: dict[str, list[str]] = {}
    for name in split_taught(eyes)[0]:
        sets.setdefault(eyes[name].source, []).append(name)
    if len(sets) < 2:
        raise UserError(
            f"{data}: eyes of one data set; write several with: "
            "python augment.py DRIVE STARE HRF --leave-one-out"
        )
    if unknown := set(wanted) - set(sets):
        raise UserError(f"--leave-one-out {min(unknown)}: not in {data}, which has {', '.join(sets)}")
    return [Group(f"without {name}", f"without_{name}", names) for name, names in sets.items()]


def cross_validate(
    run: Run, settings: Settings, eyes: Mapping[str, Eye], folds: int, wanted: Sequence[int] | None
) -> bool:
    """Train without each fold, score its eyes, write folds.csv, then train on all eyes; or train some folds.

    Each fold has its own folder, FILES/fold0 and so on, so that folds can be trained side by side. The network
    on all `eyes`, copies by name in natural order, is written to FILES itself. Only the `wanted` folds, if any
    are named, are trained, and then no network on all eyes.

    Returns:
        False if it was stopped before the end.

    Raises:
        UserError: more folds than eyes; nothing to resume, or of another training; what `train` raises.
    """
    labelled, _ = split_taught(eyes)
    groups, everything = group_by_fold(labelled, folds), {"train": list(eyes), "validation": []}
    chosen = [groups[k] for k in (range(folds) if wanted is None else sorted(set(wanted)))]
    whole, last = len(chosen) == folds, run.files / "last.pth"

    def read(names: Sequence[str]) -> list[Eye]:
        return first_copies(eyes[name] for name in names)

    with claim(run.files) if whole else contextlib.nullcontext():
        move = None
        if run.resume:
            if not any((run.files / group.folder / "last.pth").exists() for group in chosen):
                first = run.files / chosen[0].folder
                raise UserError(f"{first}: no fold to go on with; train without --resume")
            # fail now rather than after all folds
            split = load_checkpoint(last, outputs=None)[1].get("split") if last.exists() else everything
            if wanted is None and split != everything:
                raise UserError(f"{last}: of a training on other eyes; move it away, or give another --files")
        elif wanted is None:
            move = plan_move(run.files)  # as a whole, also more folds than there are now
        elif whole:
            check_own(run.files, ["folds.csv"])
        settings = as_begun(run, settings, chosen)
        for group in chosen:
            if not hold_out(run, settings, group, eyes, read, move):
                return False
            move = None
        if not whole:
            print("when all folds are trained: the same command with --resume and without --fold")
            return True
        scored = score_groups(run.files, groups, read, labelled=True, outputs=outputs_trained(settings))
        threshold, mean = write_folds(run, scored, labelled)
        if wanted is not None:
            return True
        print(f"all eyes: {len(eyes)} images to train")
        own = run.within(run.files)
        if own.resume:
            settings = read_settings(last, run.given)
        move = None if own.resume else plan_move(run.files, folds=False)
        state = train(own, settings, everything, eyes, move)
        if state is None:
            return False
        checkpoint = run.files / "checkpoint.pth"
        # save again: it may have been trained before the folds
        found = {"threshold": threshold, "cross_validation": {"folds": folds, **mean}}
        state.save(checkpoint, state.averaged, scores=state.history[-1], **found)
    print(f"{checkpoint}: trained on every eye, its threshold {threshold:.4f} from the folds")
    print(f"next: {run.next_step()} {checkpoint}")
    return True


def leave_one_out(run: Run, settings: Settings, eyes: Mapping[str, Eye], wanted: Sequence[str]) -> bool:
    """Train without each data set in turn, predict its eyes at native size in eight views, and score them.

    Each training has its own folder, FILES/without_NAME, with its checkpoint, probability/ and, for each eye,
    scores.csv. FILES/leave_one_out.csv has a row for each data set, FILES/thresholds.csv its mean F1 at each
    threshold. Only the `wanted` data sets, if any are named, are left out, and then nothing is scored.

    Returns:
        False if it was stopped before the end.

    Raises:
        UserError: fewer than two data sets, an unknown one, none of its eyes in test, or what `train` raises.
    """
    groups = group_by_data_set(run.data, eyes, wanted)
    chosen = [g for g in groups if not wanted or eyes[g.held_out[0]].source in wanted]

    def read(names: Sequence[str]) -> Iterable[Eye]:
        return native_eyes(run.data, names)

    for group in chosen:  # fail now rather than after hours
        next(iter(read(group.held_out)))
    whole = len(chosen) == len(groups)
    settings = as_begun(run, settings, chosen)
    outputs = outputs_trained(settings)
    with claim(run.files) if whole else contextlib.nullcontext():
        for group in chosen:
            folder = run.files / group.folder
            files = [folder / "checkpoint.pth"]
            files += [probability_of(folder, name, output) for name in group.held_out for output in outputs]
            # by this command, or by another with other flags: a data set may need more epochs
            done = run.resume and all(path.exists() for path in files)
            move = None if done or run.within(folder).resume else plan_move(folder)
            if not done and not hold_out(run, settings, group, eyes, read, move, native=True):
                return False
        if whole:
            scored = score_groups(run.files, groups, read, labelled=False, outputs=outputs)
            write_data_sets(run, scored, groups)
        else:
            print("when every data set was left out: the same command with --resume and without names")
    return True


def hold_out(
    run: Run,
    settings: Settings,
    group: Group,
    eyes: Mapping[str, Eye],
    read: Read,
    move_earlier: Move | None,
    native: bool = False,
) -> bool:
    """Train without a group and predict it, as far as that is not done; False if it was stopped.

    An eye that is scored chooses neither the epoch nor the threshold, so there is no validation. `native` says
    that `read` gives eyes at their native size, of other cameras than those of the training: the threshold of
    its checkpoint is the best compromise between the data sets.
    """
    from model import fold_batch_norm

    own, left_out = run.within(run.files / group.folder), set(group.held_out)
    split: Split = {"train": [], "validation": [], "held_out": []}
    for name in eyes:
        split["held_out" if name in left_out else "train"].append(name)
    given = dict(run.given)
    if seen := set(read_info(run.data).get("teachers_trained_on", [])) & set(group.eyes):
        raise UserError(
            f"{group.title}: {len(seen)} of its eyes trained the teachers of {run.data}, such as {min(seen)}; "
            "write it anew with other teachers: augment.py --teacher"
        )
    if settings.start_from and run.initial and run.initial.trained_on & set(group.eyes):
        why = f"{settings.start_from} was trained on its eyes"
        print(f"{group.title}: {why}, so this begins with random weights")
        settings = settings.from_random_weights(given)
        given.pop("start_from", None)
    if own.resume:
        settings = read_settings(own.files / "last.pth", given)
    print(f"{group.title}: {len(split['train'])} images to train, held out: {', '.join(group.eyes)}")
    with claim(own.files, "probability"):
        state = train(own, settings, split, eyes, move_earlier)
        if state is None:
            return False
        network, scores = fold_batch_norm(state.averaged), []
        first = list({eye_of(name): name for name in reversed(group.held_out)}.values())
        sample = (look_at(eye.image) for eye in read(some_of(first)))
        cameras = cameras_for(sample, network) if native else {}
        try:
            for eye in read(group.held_out):  # one by one: they can be large
                paths = {output: probability_of(own.files, eye.name, output) for output in network.outputs}
                if not all(path.exists() for path in paths.values()):
                    # training eyes are at the working scale already
                    factor = plan_scale(look_at(eye.image), network, cameras).factor if native else 1.0
                    found = segment(network, eye.image, eye.fov, views=8, scale=factor)
                    for output, probability in outputs_of(network, found):
                        write_png(paths[output], metrics.quantize(probability))
                for output, path in paths.items():
                    levels, (truth, known) = read_levels(path), eye.target(output)
                    # the threshold of the tables comes from the other groups, which may not be trained yet
                    blind = metrics.expected_f1_threshold(levels, known)
                    scores.append(metrics.scores(metrics.count_levels(levels, truth, known), blind))
            if native:
                trained = [eyes[name] for name in split["train"]]
                threshold = threshold_of_best(compromise_curve(network, run.data, trained))
                checkpoint = own.files / "checkpoint.pth"
                state.save(checkpoint, state.averaged, threshold=threshold, scores=state.history[-1])
        except KeyboardInterrupt:  # what is trained and predicted is saved
            return False
    mean = metrics.mean(scores)
    print(
        f"{group.title}: F1 {mean['f1']:.4f}, AUC {mean['auc']:.4f}, mean over {len(group.eyes)} eyes held "
        "out, at thresholds that look at no label"
    )
    return True


def as_begun(run: Run, settings: Settings, groups: Sequence[Group]) -> Settings:
    """With --resume, the settings with which other groups had begun, for those that had not."""
    paths = [run.files / group.folder / "last.pth" for group in groups]
    begun = [read_settings(path, {}) for path in paths if run.resume and path.exists()]
    if not begun:
        return settings
    if not settings.start_from and (starts := {one.start_from for one in begun} - {None}):
        raise UserError(f"{run.files}: begun with --start-from {min(map(str, starts))}; give it again")
    # one that could not start from given weights is no model for the others
    return replace(next((one for one in begun if one.start_from), begun[0]), **run.given)
