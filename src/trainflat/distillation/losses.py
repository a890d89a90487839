"""Computes losses between a student's and a teacher's logits (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531).

Shape suffixes: B batch, C classes, T tokens. Computed in float32 at least: half precision has three digits, too few for
differences of log-probabilities.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# A logit whose probability is exactly 0; unlike -inf, which makes 0 * inf = NaN in the KL divergence and its gradient.
_NO_LOGIT = -1e9
# Lower bound of log C: below log 2, the value for two answers, and above log 1 = 0, by which one would divide.
_TINY = math.log(2) / 2


def logit_losses(student_BC: Tensor, teacher_BC: Tensor, temperature: float = 2.0) -> Tensor:
    r"""Computes KL(teacher ‖ student) of every row [B] at a temperature, times the squared temperature.

    With :math:`p = \mathrm{softmax}(z / T)` on both sides: :math:`T^2 \sum_c p^t_c (\log p^t_c - \log p^s_c)`. The
    gradients of the divergence fall as 1 / T², so T² keeps their scale (section 2 of the paper). The paper writes a
    cross-entropy, which differs from it by the teacher's entropy, a constant: the gradients are the same.
    """
    student, teacher = (F.log_softmax(wide(logits) / temperature, dim=-1) for logits in (student_BC, teacher_BC))
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2


def logit_loss(student_BC: Tensor, teacher_BC: Tensor, temperature: float = 2.0) -> Tensor:
    """Returns the mean of :func:`logit_losses` over the rows.

    Example:
        >>> teacher = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
        >>> logit_loss(teacher, teacher + 5).item()  # softmax is the same with a constant added to all logits
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
        students_BT: The student's start and end logits.
        teachers_BT: The teacher's start and end logits.
        temperature: Temperature of the distributions over the tokens.
        tokens_BT: Attention mask. Padding is left out of both distributions, so that a loss does not depend on how far
            its batch was padded. Departs from the code of movement pruning, which includes padding.
    """
    ends = [
        logit_losses(_unpadded(student, tokens_BT), _unpadded(teacher, tokens_BT), temperature)
        for student, teacher in zip(students_BT, teachers_BT, strict=True)
    ]
    return torch.stack(ends).mean(0)


def number_losses(student_B1: Tensor, teacher_B1: Tensor) -> Tensor:
    """Computes the squared difference of two numbers for every row [B]; numbers have no temperature."""
    # The KL divergence of two Gaussians of equal variance, up to a factor.
    return torch.square(wide(student_B1) - wide(teacher_B1)).sum(-1)


def certainties(logits_BC: Tensor) -> Tensor:
    r"""Computes the certainty 1 - H(p) / log C of every row [B], in [0, 1], without a graph.

    With :math:`p = \mathrm{softmax}(z)`, at temperature 1, and :math:`H(p) = -\sum_c p_c \log p_c`: 0 where all classes
    are equally likely, 1 where one has probability 1. It is the teacher's weight in PINS (Ren and Zhu, Findings of ACL
    2023, arXiv:2305.12394; ``adaptive_kd_alpha`` in its code): an uncertain student learns from the labels.

    Example:
        >>> certainties(torch.tensor([[3.0, 3.0], [50.0, 0.0]])).tolist()
        [0.0, 1.0]
    """
    return _certainties(logits_BC, torch.tensor(logits_BC.shape[-1]))


def span_certainties(logits_BT: tuple[Tensor, Tensor], tokens_BT: Tensor | None = None) -> Tensor:
    """Computes the mean of :func:`certainties` over both ends of a span for every row [B]; C is the row's tokens.

    Args:
        logits_BT: Start and end logits.
        tokens_BT: Attention mask, as for :func:`span_losses`. A row of one token has certainty 1.
    """
    if tokens_BT is None:
        return torch.stack([certainties(logits) for logits in logits_BT]).mean(0)
    ends = [_certainties(_unpadded(logits, tokens_BT), tokens_BT.sum(-1)) for logits in logits_BT]
    return torch.stack(ends).mean(0)


# Without a graph: otherwise the student could lower its loss by becoming uncertain.
@torch.no_grad()
def _certainties(logits: Tensor, counts: Tensor) -> Tensor:
    log_p = F.log_softmax(wide(logits), dim=-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    # clamp_min: a single answer has entropy 0 and log C = 0. clamp: rounding may leave [0, 1].
    return (1 - entropy / counts.to(entropy.dtype).log().clamp_min(_TINY)).clamp(0, 1)


def _unpadded(logits: Tensor, tokens: Tensor | None) -> Tensor:
    return logits if tokens is None else wide(logits).masked_fill(tokens == 0, _NO_LOGIT)


def wide(values: Tensor) -> Tensor:
    """Converts half precision to float32; other types stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
