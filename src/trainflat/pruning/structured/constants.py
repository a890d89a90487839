"""Finds units of which zeros leave a constant at most, and moves these constants into the biases after them."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.anatomy import Anatomy, Attention, FeedForward, Linear, anatomy_of
from trainflat.anatomy.params import unwrapped
from trainflat.objective.state_guard import preserve_state
from trainflat.pruning.structured.kept import Kept
from trainflat.pruning.structured.sub_layers import sub_layers


def units_left(model: nn.Module) -> Kept:
    """Returns the units of a model with zeros in it that :func:`shrink` must keep to compute the same.

    What goes, and why nothing is lost:

    * a feed-forward unit, or a dimension of a head's values, whose column in the output matrix is zero, as nothing
      reads it;
    * one whose row is zero, bias included or not: it is the same number for every input, ``act(b)`` or, as attention
      weights sum to 1, ``b``. The bias after it takes it in, which :func:`fold_constants` does; without such a bias a
      unit goes only if the number is 0;
    * a query-key dimension of which one side is zero, bias included: it adds 0 to every score. A head that has none
      left attends to all positions alike, and stays while its values do.

    Raises:
        InputError: no anatomy is known of the model's architecture.
    """
    plain: Any = unwrapped(model)
    anatomy = anatomy_of(plain)
    zeros, kept = _Zeros(plain, anatomy), Kept.all(anatomy)
    layers = []
    for place, (layer, own) in enumerate(zip(anatomy.layers, kept.layers, strict=True)):
        values, units = zeros.values(layer.attention), zeros.units(place, layer.feed_forward)
        scores = own.query_key if anatomy.rotary else zeros.query_key(layer.attention)
        layers.append(replace(own, query_key=scores, value_output=values.left.double(), units=units.left.double()))
    return replace(kept, layers=tuple(layers))


@torch.no_grad()
def fold_constants(model: nn.Module) -> None:
    """Adds what units without inputs put out, a constant, to the biases after them, and zeroes the columns they had.

    In evaluation the model computes what it did, but for rounding; then ``shrink(model, units_left(model))`` does too.
    In training, dropout no longer acts on the constants.

    Args:
        model: A transformers model of a known architecture, changed in place.

    Raises:
        InputError: no anatomy is known of the model's architecture.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> sizes = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6, vocab_size=9)
        >>> model = BertModel(BertConfig(**sizes)).eval()
        >>> _ = model.encoder.layer[0].intermediate.dense.weight.data[:4].zero_()
        >>> before = model(torch.tensor([[1, 2, 3]])).last_hidden_state
        >>> fold_constants(model)
        >>> torch.allclose(model(torch.tensor([[1, 2, 3]])).last_hidden_state, before, atol=1e-6)
        True
        >>> units_left(model).layers[0].units.tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    """
    plain: Any = unwrapped(model)
    for one in _Zeros(plain, anatomy_of(plain)).all():
        moved = one.constant & one.read & (one.values != 0)
        if one.bias is not None and moved.any():
            added = one.matrix[:, moved].double() @ one.values[moved]
            one.bias.copy_(one.bias.double() + added)  # rounded once
            one.matrix[:, moved] = 0


@dataclass(frozen=True)
class _Units:
    """Holds what becomes of the units that one output matrix reads.

    Attributes:
        matrix: The output matrix [outputs, units].
        bias: Its bias [outputs], or None.
        constant: Which units are the same for every input [units].
        values: What these are, in float64 [units].
    """

    matrix: Tensor
    bias: Tensor | None
    constant: Tensor
    values: Tensor

    @property
    def read(self) -> Tensor:
        """Which units have a column that is not zero [units]."""
        return self.matrix.any(0)

    @property
    def left(self) -> Tensor:
        """Which units must stay [units], on the CPU."""
        gone = self.constant if self.bias is not None else self.constant & (self.values == 0)
        return (self.read & ~gone).cpu()


class _Zeros:
    """Looks for zeros in a model's tensors."""

    def __init__(self, model: Any, anatomy: Anatomy) -> None:
        self.model, self.anatomy = model, anatomy
        self.tensors: dict[str, Tensor] = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)}

    def all(self) -> Iterator[_Units]:
        for place, layer in enumerate(self.anatomy.layers):
            yield self.values(layer.attention)
            yield self.units(place, layer.feed_forward)

    def values(self, part: Attention) -> _Units:
        """Returns the dimensions of all heads' values."""
        return self._units(part.output, self._silent(part.value), self._bias(part.value).double())

    def units(self, place: int, part: FeedForward) -> _Units:
        silent = torch.stack([self._silent(one) for one in part.inputs]).all(0)
        values = self._activations[place] if silent.any() else torch.zeros(len(silent), dtype=torch.float64)
        values = values.to(silent.device)
        if len(part.inputs) > 1:  # the last one gates: what it multiplies by 0 is 0
            shut = self._zero(part.inputs[-1])
            silent, values = silent | shut, values.masked_fill(shut, 0)
        return self._units(part.output, silent, values)

    def query_key(self, part: Attention) -> Tensor:
        """Returns factors of the query-key dimensions: 0 where either side is zero, in all of its projections."""
        sides = (torch.stack([self._zero(one) for one in side]).all(0) for side in (part.query, part.key))
        return (~torch.stack([*sides]).any(0)).double().cpu()

    def _units(self, output: Linear, constant: Tensor, values: Tensor) -> _Units:
        bias = None if output.bias is None else self.tensors[output.bias]
        matrix = self.tensors[output.weight] if output.has_weight else constant.new_zeros(0, len(constant)).float()
        return _Units(matrix, bias, constant, values)

    def _silent(self, one: Linear) -> Tensor:
        """Returns which rows of a layer's matrix are zero."""
        if not one.has_weight:
            return torch.zeros(0, dtype=torch.bool)
        return ~self.tensors[one.weight][one.start : one.stop].any(1)

    def _zero(self, one: Linear) -> Tensor:
        return self._silent(one) & (self._bias(one) == 0)

    def _bias(self, one: Linear) -> Tensor:
        if one.bias is None or not one.has_weight:
            like = next(iter(self.tensors.values()))
            return like.new_zeros(one.outputs if one.has_weight else 0)
        return self.tensors[one.bias][one.start : one.stop]

    @cached_property
    def _activations(self) -> dict[int, Tensor]:
        """What feed-forward output matrices read at one position of some input, in float64, by place of the layer.

        Of a unit without inputs it is what they read at all positions. The model is run, because families keep their
        activation functions under names of their own, or none.
        """
        found: dict[int, Tensor] = {}

        def keep(place: int, _: nn.Module, args: tuple[Any, ...]) -> None:
            found[place] = args[0].flatten(0, -2)[0].double()

        with ExitStack() as stack:
            stack.enter_context(preserve_state(self.model, []))
            stack.enter_context(torch.no_grad())
            for sub in sub_layers(self.model):
                if sub.kind == "feed-forward":
                    handle = sub.matrix(self.model).register_forward_pre_hook(partial(keep, sub.place))
                    stack.callback(handle.remove)
            self.model.base_model(**_some_input(self.model))
        return found


def _some_input(model: Any) -> dict[str, Tensor]:
    """Returns an input that the encoder of any family reads."""
    like = next(model.parameters())
    if model.main_input_name == "pixel_values":
        side, channels = model.config.image_size, model.config.num_channels
        return {"pixel_values": like.new_zeros(1, channels, *([side, side] if isinstance(side, int) else side))}
    ids = torch.zeros(1, 2, dtype=torch.long, device=like.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
