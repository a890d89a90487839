"""Multiplies activations by values of heads, units, sub-layers and hidden dimensions, as CoFi's gates do."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.hooks import RemovableHandle

from trainflat.anatomy import Anatomy, Attention, FeedForward, anatomy_of
from trainflat.core.errors import InputError

HIDDEN = "hidden dimension"


@dataclass(frozen=True)
class Draw:
    """Holds the values that a pass computes with.

    Attributes:
        values: By name: of units [n], of sub-layers [1], of hidden dimensions [hidden].
        closed: Names of the sub-layers whose value is 0.
        hidden: Number of the hidden dimensions whose value is not 0.
    """

    values: Mapping[str, Tensor]
    closed: frozenset[str]
    hidden: int

    @classmethod
    def of(cls, values: Mapping[str, Tensor]) -> "Draw":
        """Looks which sub-layers are closed; the one time at which a GPU is waited for."""
        whole = [name for name in values if "sub-layer" in name]
        found = [values[name].detach() for name in whole]
        kept = values[HIDDEN].detach().count_nonzero().view(1) if HIDDEN in values else torch.zeros(1)
        numbers = torch.cat([*found, kept.to(found[0])] if found else [kept]).tolist()
        closed = frozenset(name for name, number in zip(whole, numbers, strict=False) if number == 0)
        return cls(values, closed, int(numbers[-1]))


@dataclass(frozen=True)
class Part:
    """Names a sub-layer's values and modules.

    Attributes:
        units: Name of the values of its heads or units; empty where it has none left.
        whole: Name of its own value.
        count: Number of its units.
        width: Columns of the output matrix per unit.
        output: Module of the output matrix.
        norm: Module of the LayerNorm after the residual; empty without one.
    """

    units: str
    whole: str
    count: int
    width: int
    output: str
    norm: str


class GatedActivations:
    r"""Knows where the values of structural units multiply, and puts hooks there for a while.

    With h the values of the hidden dimensions, as in CoFi's model (Xia, Zhong and Chen, ACL 2022)::

        embeddings      LN(sum * h)
        attention       LN(dropout(output matrix(heads * z_head) * z_attention * h) + residual)
        feed-forward    LN(dropout(output matrix(units * z_unit) * z_ffn * h) + residual)
        LN              over the dimensions whose h is not 0, and times h

    The output matrices' biases are multiplied too. A sub-layer whose own value is 0 is skipped with its LayerNorm: its
    input passes on. One whose units are all 0 still adds its bias, and its LayerNorm acts. That is what
    :func:`trainflat.pruning.structured.shrink` builds.

    Args:
        model: A transformers model of a known architecture.
        hidden: Whether hidden dimensions have values. Needs LayerNorms after the residual, and one after each table of
            embeddings.

    Attributes:
        anatomy: Of the model.
        sizes: Number of values by name.

    Raises:
        InputError: the architecture is not known, or its hidden dimensions cannot have values.
    """

    def __init__(self, model: nn.Module, *, hidden: bool = True) -> None:
        self.model, self.anatomy, self.hidden = model, anatomy_of(model), hidden
        self.parts = [*_parts(self.anatomy)]
        self.sizes = {part.units: part.count for part in self.parts if part.units}
        self.sizes |= {part.whole: 1 for part in self.parts if part.units}
        self._outside = self._outside_norms() if hidden else {}
        if hidden:
            self.sizes[HIDDEN] = self.anatomy.hidden_size

    def alive(self, draw: Draw) -> list[bool]:
        """Returns for each layer whether its attention or its feed-forward is not skipped."""
        wholes = [part.units != "" and part.whole not in draw.closed for part in self.parts]
        return [a or f for a, f in zip(wholes[::2], wholes[1::2], strict=True)]

    @contextmanager
    def standing(self, now: Callable[[], Draw]) -> Iterator[None]:
        """Puts the hooks in place for the block.

        Args:
            now: Returns what the pass that runs computes with.
        """
        handles = [*self._register(now)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _register(self, now: Callable[[], Draw]) -> Iterator[RemovableHandle]:
        find = self.model.get_submodule
        for part in self.parts:
            if part.units:
                yield find(part.output).register_forward_pre_hook(_Units(now, part))
            if part.units or self.hidden:
                yield find(part.output).register_forward_hook(_Whole(now, part.whole))
            if part.norm and not self.anatomy.pre_norm:
                yield find(part.norm).register_forward_hook(_Norm(now, part.whole))
        for path, is_norm in self._outside.items():
            yield find(path).register_forward_hook(_Norm(now, embeds=True) if is_norm else _Whole(now))

    def _outside_norms(self) -> dict[str, bool]:
        """Returns the modules outside the layers that write hidden states, and whether they are LayerNorms."""
        anatomy, family = self.anatomy, self.anatomy.family
        if anatomy.pre_norm:
            raise InputError(
                f"hidden dimensions of {family} cannot be gated: its LayerNorms stand before the sub-layers. Set "
                "hidden: false."
            )
        inside = {part.output for part in self.parts} | {part.norm for part in self.parts}
        paths = dict.fromkeys(one.tensor.rpartition(".")[0] for one in anatomy.hidden_producers)
        found = {path: self.model.get_submodule(path) for path in paths if path not in inside}
        norms = {path for path, module in found.items() if isinstance(module, nn.LayerNorm)}
        tables = [path for path, module in found.items() if isinstance(module, nn.Embedding)]
        bare = next((one for one in tables if not any(_beside(one, norm) for norm in norms)), "")
        if bare:
            raise InputError(
                f"hidden dimensions of this {family} cannot be gated: no LayerNorm follows {bare}. Set hidden: false."
            )
        return {path: path in norms for path in found if path not in tables}


def _parts(anatomy: Anatomy) -> Iterator[Part]:
    for place, layer in enumerate(anatomy.layers):
        a, f = layer.attention, layer.feed_forward
        yield _part(a, "head", f"attention sub-layer {place}", a.heads)
        yield _part(f, "feed-forward unit", f"feed-forward sub-layer {place}", f.output.inputs)


def _part(one: Attention | FeedForward, kind: str, whole: str, count: int) -> Part:
    output, place = one.output, whole.rpartition(" ")[2]
    norm = one.norm[0].rpartition(".")[0] if one.norm else ""
    units, width = (f"{kind} {place}", output.inputs // count) if count else ("", 0)
    return Part(units, whole, count, width, output.weight.removesuffix(".weight"), norm)


def _beside(path: str, other: str) -> bool:
    return path.rpartition(".")[0] == other.rpartition(".")[0]


@dataclass(frozen=True)
class _Units:
    """Multiplies what an output matrix reads by the values of its units."""

    now: Callable[[], Draw]
    part: Part

    def __call__(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        values = self.now().values[self.part.units]
        return (args[0] * values.repeat_interleave(self.part.width).to(args[0].dtype), *args[1:])


@dataclass(frozen=True)
class _Whole:
    """Multiplies the output of a module by a sub-layer's value and the values of hidden dimensions."""

    now: Callable[[], Draw]
    whole: str = ""

    def __call__(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        values = self.now().values
        factors = [values[name] for name in (self.whole, HIDDEN) if name in values]
        return output * prod(factors[1:], start=factors[0]).to(output.dtype) if factors else output


@dataclass(frozen=True)
class _Norm:
    """Normalises over the dimensions that are kept; not at all after a sub-layer that is skipped."""

    now: Callable[[], Draw]
    whole: str = ""
    embeds: bool = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
        draw, states = self.now(), args[0]
        if self.whole in draw.closed:
            # Data parallel waits for a gradient of every parameter, be it 0.
            unused = [p.sum() for p in module.parameters()] if torch.is_grad_enabled() else []
            return states + 0 * sum(unused) if unused else states
        if HIDDEN not in draw.values:
            return output
        assert isinstance(module, nn.LayerNorm), "an anatomy's norms are"
        factors = draw.values[HIDDEN]
        return norm_over_kept(states * factors if self.embeds else states, factors, draw.hidden, module)


def norm_over_kept(x: Tensor, factors: Tensor, kept: int, norm: nn.LayerNorm) -> Tensor:
    r"""Computes a LayerNorm over the dimensions whose factor is not 0, times the factors.

    CoFi's code gathers these dimensions, so that shapes depend on the draw. Here the others are set to the mean of the
    kept ones, which are n of N. Over all N the mean is then the same and the variance :math:`v n / N`, so that
    PyTorch's kernel, with :math:`\epsilon n / N` and its result times :math:`\sqrt{n / N}`, gives
    :math:`(x - \mu) / \sqrt{v + \epsilon}`.

    Args:
        x: Hidden states [..., N], 0 where the factor is.
        factors: [N].
        kept: n.
        norm: Has the weight, the bias and :math:`\epsilon`.

    Example:
        >>> x, factors = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([2.0, 0.0, 1.0])
        >>> norm_over_kept(x, factors, 2, nn.LayerNorm(3, eps=0)).tolist()
        [-2.0, 0.0, 1.0]
    """
    size, kept, factors = len(factors), max(kept, 1), factors.to(x.dtype)
    weight = factors if norm.weight is None else norm.weight * factors
    bias = None if norm.bias is None else norm.bias * factors
    if kept < size:
        mean = x.sum(-1, keepdim=True) / kept
        x = torch.where(factors.detach() != 0, x, mean)
        weight = weight * (kept / size) ** 0.5
    return F.layer_norm(x, (size,), weight, bias, norm.eps * kept / size)
