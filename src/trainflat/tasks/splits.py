"""Divides the rows of a task into those that are trained on and those that are evaluated."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.tasks.repeats import text_keys
from trainflat.tasks.rows import LABEL, Rows


def hold_out(rows: Rows, share: float, seed: int, *, by_class: bool) -> tuple[Rows, Rows]:
    """Divides rows into those that stay and those held out, each in the order of the split.

    Rows of one text (:func:`~trainflat.tasks.repeats.text_keys`) are never parted.

    Args:
        share: About how much to hold out; exact where no text is there twice and every class has rows enough.
        by_class: Hold out this share of every class, at least one row of each that has rows for both sides.

    Raises:
        InputError: the share is not in (0, 1) or leaves one part empty.
    """
    if not 0 < share < 1:
        raise InputError(f"holdout is the share of the training rows to set aside, in [0, 1), got {share}.")
    count = round(share * len(rows))
    groups: dict[Any, list[int]] = {}
    keys = text_keys(rows)
    for row in _generator(seed).permutation(len(rows)).tolist():
        groups.setdefault(keys[row], []).append(row)
    strata: dict[Any, list[list[int]]] = {}
    for group in groups.values():
        strata.setdefault(rows.columns[LABEL][min(group)] if by_class else None, []).append(group)
    if max(map(len, strata.values()), default=0) < 2:  # no class can be on both sides
        strata = {None: list(groups.values())}
    counts = _apportion({key: sum(map(len, parts)) for key, parts in strata.items()}, count)
    held = sorted(row for key, parts in strata.items() for row in _fill(parts, counts[key], least=len(strata) > 1))
    if not (count and 0 < len(held) < len(rows)):
        texts = f" (of {len(groups)} different texts)" if len(groups) < len(rows) else ""
        raise InputError(
            f"holdout {share} of {plural(len(rows), 'training row')}{texts} leaves one part empty. Choose another "
            "share."
        )
    out = set(held)
    return rows.take([row for row in range(len(rows)) if row not in out]), rows.take(held)


def _apportion(sizes: Mapping[Any, int], count: int) -> dict[Any, int]:
    """Divides ``count`` in proportion to the sizes, by the largest remainders, ties in the order given."""
    exact = {key: count * size / sum(sizes.values()) for key, size in sizes.items()}
    parts = {key: int(value) for key, value in exact.items()}
    left = count - sum(parts.values())
    for key in sorted(exact, key=lambda key: parts[key] - exact[key])[:left]:
        parts[key] += 1
    return parts


def _fill(groups: Sequence[list[int]], count: int, *, least: bool) -> list[int]:
    """Takes rows of whole groups in the order given, at most ``count``; with ``least`` at least one group.

    One group always stays, where ``least`` says that both sides must have one.
    """
    taken: list[int] = []
    for group in groups[: len(groups) - least]:
        if len(taken) + len(group) <= count:
            taken += group
    if least and not taken and len(groups) > 1:
        return min(groups, key=len)
    return taken


def draw(rows: Rows, count: int, seed: int) -> Rows:
    """Draws ``count`` rows without replacement, in the order of the split.

    Raises:
        InputError: there are not that many, or none are asked for.
    """
    if not 0 < count <= len(rows):
        raise InputError(f"rows is how many training rows to draw, from 1 to the {len(rows)} there are, got {count}.")
    return rows if count == len(rows) else rows.take(np.sort(_generator(seed).permutation(len(rows))[:count]).tolist())


def _generator(seed: int) -> np.random.RandomState:
    # The stream of RandomState is frozen by numpy; that of default_rng may change with a release.
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))


def arrange(
    read: Callable[[str], Rows],
    *,
    train: str,
    evaluate: Sequence[str],
    holdout: float,
    rows: int | None,
    seed: int,
    by_class: bool,
) -> tuple[Rows, dict[str, Rows]]:
    """Reads and divides the rows: those to train on, and the evaluation splits by name, the main one first.

    With ``holdout`` the evaluation splits are not even read; ``by_class`` says how rows are held out.

    Raises:
        InputError: an evaluation split is the training split, none is named, rows are named twice, or a size does not
            fit.
    """
    _check_once(train, evaluate)
    if not holdout:
        _check_apart(train, evaluate)
    training = read(train)
    if holdout:
        training, held = hold_out(training, holdout, seed, by_class=by_class)
        evaluation = {"holdout": held}
    else:
        evaluation = {name: read(name) for name in evaluate}
    return training if rows is None else draw(training, rows, seed), evaluation


def _check_once(train: str, evaluate: Sequence[str]) -> None:
    """Refuses splits named twice, whose rows could be held out and trained on at once."""
    for names, where in ((train.split("+"), f"train {train!r}"), (list(evaluate), f"evaluate {list(evaluate)}")):
        whole = [name.removesuffix("_partial") for name in names]
        twice = next((name for name in whole if whole.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{where} names rows of {twice!r} twice. Name each split once.")


def _check_apart(train: str, evaluate: Sequence[str]) -> None:
    trained = {"train", *train.split("+")}
    clash = next((name for name in evaluate if trained.intersection(name.split("+"))), None)
    if clash is not None:
        raise InputError(f"evaluate names {clash!r}, which is trained on. Name a validation split, or set holdout.")
    if not evaluate:
        raise InputError("evaluate names no split. Name a validation split.")
