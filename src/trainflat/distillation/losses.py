"""Computes losses between a student's and a teacher's logits (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531).

Shape suffixes: B batch, C classes, T tokens. Computed in float32 at least, whatever comes in.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# A logit that stands for "no": its probability is exactly 0, and unlike -inf it leaves no NaN behind (0 * inf).
_NO_LOGIT = -1e9
_TINY = math.log(2) / 2  # below the entropy that two answers can have, above that of one


def logit_losses(student_BC: Tensor, teacher_BC: Tensor, temperature: float = 2.0) -> Tensor:
    r"""Computes KL(teacher ‖ student) of every row [B] at a temperature, times its square.

    With :math:`p = \mathrm{softmax}(z / T)` on both sides: :math:`T^2 \sum_c p^t_c (\log p^t_c - \log p^s_c)`. The
    square keeps the scale of gradients, which fall as 1 / T² (section 2 of the paper). The paper writes a
    cross-entropy, which differs by the teacher's entropy, a constant: the gradients are the same.
    """
    student, teacher = (F.log_softmax(_wide(logits) / temperature, dim=-1) for logits in (student_BC, teacher_BC))
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2


def logit_loss(student_BC: Tensor, teacher_BC: Tensor, temperature: float = 2.0) -> Tensor:
    """Returns the mean of :func:`logit_losses` over the rows.

    Example:
        >>> teacher = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
        >>> logit_loss(teacher, teacher + 5).item()  # what is added to all classes says nothing
        0.0
    """
    return logit_losses(student_BC, teacher_BC, temperature).mean()


def span_losses(
    students_BT: tuple[Tensor, Tensor],
    teachers_BT: tuple[Tensor, Tensor],
    temperature: float = 2.0,
    tokens_BT: Tensor | None = None,
) -> Tensor:
    """Returns the mean of :func:`logit_losses` over both ends of a span, start and end, of every row [B].

    Args:
        students_BT: Start and end logits.
        teachers_BT: Likewise.
        temperature: Of both distributions over the tokens.
        tokens_BT: Where a row has tokens; elsewhere is padding, which has no part in either distribution, so that a
            loss does not depend on how far its batch was padded. (The code of movement pruning counts padding.)
    """
    pairs = [
        (_without(padding, student), _without(padding, teacher))
        for padding in [None if tokens_BT is None else tokens_BT == 0]
        for student, teacher in zip(students_BT, teachers_BT, strict=True)
    ]
    return torch.stack([logit_losses(student, teacher, temperature) for student, teacher in pairs]).mean(0)


def number_losses(student_B1: Tensor, teacher_B1: Tensor) -> Tensor:
    """Returns the squared difference of two numbers for every row [B]; numbers have no temperature."""
    return torch.square(_wide(student_B1) - _wide(teacher_B1)).sum(-1)


def certainties(logits_BC: Tensor) -> Tensor:
    r"""Returns how sure every row [B] is of its answer, in [0, 1], as a constant without a graph: 1 - H(p) / log C.

    With :math:`p = \mathrm{softmax}(z)`, at no temperature, and :math:`H(p) = -\sum_c p_c \log p_c`: 0 where all
    classes are alike, 1 where one has it all. The share of the teacher in PINS (Ren and Zhu, Findings of ACL 2023,
    arXiv:2305.12394), as ``adaptive_kd_alpha`` of its code has it: who wavers learns from the labels.

    Example:
        >>> certainties(torch.tensor([[3.0, 3.0], [50.0, 0.0]])).tolist()
        [0.0, 1.0]
    """
    return _certainties(logits_BC, torch.tensor(logits_BC.shape[-1]))


def span_certainties(logits_BT: tuple[Tensor, Tensor], tokens_BT: Tensor | None = None) -> Tensor:
    """The mean of :func:`certainties` over both ends of a span, of every row [B], C being the tokens of the row.

    Args:
        logits_BT: Start and end logits.
        tokens_BT: As for :func:`span_losses`. A row of one token is sure of it.
    """
    if tokens_BT is None:
        return torch.stack([certainties(logits) for logits in logits_BT]).mean(0)
    ends = [_certainties(_without(tokens_BT == 0, logits), tokens_BT.sum(-1)) for logits in logits_BT]
    return torch.stack(ends).mean(0)


@torch.no_grad()
def _certainties(logits: Tensor, counts: Tensor) -> Tensor:
    log_p = F.log_softmax(_wide(logits), dim=-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    # Of one answer the entropy is 0 and so is its bound; and rounding must not lead out of the range.
    return (1 - entropy / counts.to(entropy.dtype).log().clamp_min(_TINY)).clamp(0, 1)


def _without(padding: Tensor | None, logits: Tensor) -> Tensor:
    return logits if padding is None else _wide(logits).masked_fill(padding, _NO_LOGIT)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
