"""Divides the rows of a task into those that are trained on and those that are evaluated."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.tasks.repeats import text_keys
from trainflat.tasks.rows import LABEL, Rows


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
    """Reads the splits of a task and divides them into training rows and evaluation splits, the main one first.

    With ``holdout`` the evaluation splits are not even read, so that tuning cannot depend on them.

    Args:
        read: Reads one split by name.
        holdout: Share of the training rows to evaluate on instead of ``evaluate``; 0 for none.
        rows: Number of training rows to draw, after ``holdout``; None for all.
        by_class: Whether ``holdout`` is stratified by label.

    Raises:
        InputError: an evaluation split is the training split, none is named, rows are named twice, or ``holdout`` or
            ``rows`` does not fit the number of rows.
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
        # X_partial is a subset of X, so that the two together hold rows twice as well.
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


def hold_out(rows: Rows, share: float, seed: int, *, by_class: bool) -> tuple[Rows, Rows]:
    """Splits rows into training and held-out rows, each in the order of the data.

    Rows with the same text (:func:`~trainflat.tasks.repeats.text_keys`) stay on one side: a text on both sides would
    be leakage, and data sets of user reviews repeat short ones.

    Args:
        share: Share to hold out, rounded to rows; met exactly unless texts repeat or a class has too few rows.
        by_class: Whether to stratify: every class gives this share, and at least one row if it has two texts.

    Raises:
        InputError: the share is not in (0, 1), or leaves one side empty.
    """
    if not 0 < share < 1:
        raise InputError(f"holdout is the share of the training rows to set aside, in [0, 1), got {share}.")
    count = round(share * len(rows))
    groups = _text_groups(rows, seed)
    strata = _strata(groups, rows.columns[LABEL] if by_class else None)
    counts = _apportion({key: sum(map(len, parts)) for key, parts in strata.items()}, count)
    held = sorted(row for key, parts in strata.items() for row in _fill(parts, counts[key], least=len(strata) > 1))
    if not (count and 0 < len(held) < len(rows)):
        texts = f" (of {len(groups)} different texts)" if len(groups) < len(rows) else ""
        raise InputError(
            f"holdout {share} of {plural(len(rows), 'training row')}{texts} leaves one part empty. Choose another "
            "share."
        )
    out = set(held)
    return rows.select([row for row in range(len(rows)) if row not in out]), rows.select(held)


def _text_groups(rows: Rows, seed: int) -> list[list[int]]:
    """Groups row indices by text, in random order."""
    groups: dict[Any, list[int]] = {}
    keys = text_keys(rows)
    for row in _generator(seed).permutation(len(rows)).tolist():
        groups.setdefault(keys[row], []).append(row)
    return list(groups.values())


def _strata(groups: Sequence[list[int]], labels: Sequence[Any] | None) -> dict[Any, list[list[int]]]:
    """Sorts groups by the label of their first row; into one stratum if no class has two groups to divide."""
    strata: dict[Any, list[list[int]]] = {}
    for group in groups:
        strata.setdefault(None if labels is None else labels[min(group)], []).append(group)
    return strata if max(map(len, strata.values()), default=0) > 1 else {None: list(groups)}


def _apportion(sizes: Mapping[Any, int], count: int) -> dict[Any, int]:
    """Divides ``count`` in proportion to the sizes by the largest-remainder method, ties in the order given.

    Rounding each class by itself would not sum to ``count``.
    """
    exact = {key: count * size / sum(sizes.values()) for key, size in sizes.items()}
    parts = {key: int(value) for key, value in exact.items()}
    left = count - sum(parts.values())
    for key in sorted(exact, key=lambda key: parts[key] - exact[key])[:left]:
        parts[key] += 1
    return parts


def _fill(groups: Sequence[list[int]], count: int, *, least: bool) -> list[int]:
    """Takes whole groups in order until they hold ``count`` rows at most.

    With ``least`` both sides get at least one group, so that no class is only trained on or only evaluated.
    """
    taken: list[int] = []
    for group in groups[: len(groups) - least]:
        if len(taken) + len(group) <= count:
            taken += group
    if least and not taken and len(groups) > 1:
        return min(groups, key=len)
    return taken


def draw(rows: Rows, count: int, seed: int) -> Rows:
    """Draws ``count`` rows without replacement and returns them in the order of the data.

    Raises:
        InputError: ``count`` is not between 1 and the number of rows.
    """
    if not 0 < count <= len(rows):
        raise InputError(f"rows is how many training rows to draw, from 1 to the {len(rows)} there are, got {count}.")
    if count == len(rows):
        return rows
    return rows.select(np.sort(_generator(seed).permutation(len(rows))[:count]).tolist())


def _generator(seed: int) -> np.random.RandomState:
    # numpy guarantees the same stream across releases for RandomState, not for default_rng: a run that is resumed with
    # a newer numpy must hold out the same rows.
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
