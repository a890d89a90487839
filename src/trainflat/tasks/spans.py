"""Finds the answer span in the logits of one window."""

import numpy as np


def best_span(
    start_T: np.ndarray, end_T: np.ndarray, offsets_T2: np.ndarray, n_best: int, max_tokens: int
) -> tuple[float, int, int] | None:
    """Returns the span of the highest start plus end logit.

    Only the ``n_best`` starts and ends are tried, as in the published evaluation; a span lies within the context, does
    not end before it starts and has at most ``max_tokens`` tokens.

    Args:
        start_T: Start logits of the window's tokens, without padding.
        end_T: End logits.
        offsets_T2: First character and end of each token in the context; -1 where a token is not of the context.

    Returns:
        Sum of the logits, first character, end; or None if no span is allowed.
    """
    context = np.flatnonzero(offsets_T2[: len(start_T), 0] >= 0)
    starts, ends = (context[np.argsort(-logits[context], kind="stable")[:n_best]] for logits in (start_T, end_T))
    tokens = ends[None, :] - starts[:, None] + 1
    scores = np.where((tokens >= 1) & (tokens <= max_tokens), start_T[starts][:, None] + end_T[ends][None, :], -np.inf)
    if scores.size == 0 or np.isneginf(scores.max()):
        return None
    i, j = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[i, j]), int(offsets_T2[starts[i], 0]), int(offsets_T2[ends[j], 1])
