"""Counts the parameters that are left of a model's layers, by one definition and by CoFi's."""

from collections.abc import Iterable
from dataclasses import dataclass

from trainflat.anatomy import Anatomy, Attention, FeedForward, Linear
from trainflat.pruning.structured.kept import Kept, KeptLayer


@dataclass(frozen=True)
class Counts:
    """Holds parameters of a model's layers, without embeddings, pooler and head.

    Attributes:
        encoder: Weights, biases and LayerNorms that the shrunk model has, padding of uneven heads included.
        dense_encoder: Those of the model as it is.
        cofi: Weights without biases and LayerNorms, as CoFi logs them (Xia, Zhong and Chen, ACL 2022): 4 matrices of
            each kept head's size and 2 vectors of each unit (3 where one half of the units gates the other), over the
            kept hidden dimensions.
        cofi_dense: What CoFi divides it by: weights and biases without LayerNorms, 85,017,600 of BERT-base.
    """

    encoder: int
    dense_encoder: int
    cofi: int
    cofi_dense: int

    @property
    def sparsity(self) -> float:
        return 1 - self.encoder / self.dense_encoder

    @property
    def cofi_sparsity(self) -> float:
        return 1 - self.cofi / self.cofi_dense


def count(kept: Kept, anatomy: Anatomy) -> Counts:
    """Counts what :func:`shrink` would leave of a model.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> from trainflat.anatomy import anatomy_of
        >>> with torch.device("meta"):
        ...     anatomy = anatomy_of(BertModel(BertConfig()))
        >>> half = Kept.all(anatomy).without(anatomy.units("feed-forward unit")[::2])
        >>> count(half, anatomy).cofi_dense, round(count(half, anatomy).sparsity, 3)
        (85017600, 0.333)
    """
    every = Kept.all(anatomy)
    return Counts(
        _layers(kept, anatomy),
        _layers(every, anatomy),
        sum(_cofi(layer, own, int(kept.hidden.count_nonzero())) for layer, own in _pairs(anatomy, kept)),
        _layers(every, anatomy, norms=False),
    )


def _pairs(anatomy: Anatomy, kept: Kept) -> Iterable[tuple[tuple[Attention, FeedForward], KeptLayer]]:
    parts = [(layer.attention, layer.feed_forward) for layer in anatomy.layers]
    return zip(parts, kept.layers, strict=True)


def _layers(kept: Kept, anatomy: Anatomy, *, norms: bool = True) -> int:
    hidden, total = int(kept.hidden.count_nonzero()), 0
    for (attention, feed_forward), own in _pairs(anatomy, kept):
        heads, widest = own.kept_heads(), own.widest_head()
        size = attention.head_size if anatomy.rotary else widest
        inner = (*attention.query, *attention.key, attention.value)
        for part, linears, width, state in (
            (attention, inner, len(heads) * size, own.attention_state),
            (feed_forward, feed_forward.inputs, int(own.units.count_nonzero()), own.feed_forward_state),
        ):
            norm = len(part.norm) * hidden * norms
            if state == "alive":
                total += sum(_size(one, width, hidden) for one in linears) + _size(part.output, hidden, width) + norm
            elif state == "bias-only":
                total += _size(part.output, hidden, 0) + (0 if anatomy.pre_norm else norm)
    return total


def _size(linear: Linear, outputs: int, inputs: int) -> int:
    return outputs * (inputs + (linear.bias is not None))


def _cofi(parts: tuple[Attention, FeedForward], own: KeptLayer, hidden: int) -> int:
    attention, feed_forward = parts
    heads = len(own.kept_heads()) if own.attention_state == "alive" else 0
    units = int(own.units.count_nonzero()) if own.feed_forward_state == "alive" else 0
    return hidden * (heads * 4 * attention.head_size + units * (len(feed_forward.inputs) + 1))
