"""Lists a model's sub-layers with the units that each of them reads, and gates these units."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from torch import Tensor, nn

from trainflat.anatomy import Anatomy, Attention, FeedForward, Layer, Linear, Unit, anatomy_of

Kind = Literal["attention", "feed-forward"]


@dataclass(frozen=True)
class SubLayer:
    """Names an attention or feed-forward sub-layer: units, and the matrix that reads them.

    Attributes:
        kind: Its units are heads, or feed-forward units.
        place: Place of its layer in ``Anatomy.layers``; 0 where all layers share their tensors (ALBERT).
        units: In the order of their columns.
        output: The matrix that reads the units; each has as many of its columns.
        norms: Modules of the layer's LayerNorms; one of them may normalise this sub-layer's output.
        path: Module of the layer.
    """

    kind: Kind
    place: int
    units: tuple[Unit, ...]
    output: Linear
    norms: tuple[str, ...]
    path: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.place}"

    @property
    def width(self) -> int:
        """Columns of the output matrix per unit: the size of a head's values, or 1."""
        return self.output.inputs // len(self.units)

    @property
    def module(self) -> str:
        return self.output.weight.removesuffix(".weight")

    def matrix(self, model: nn.Module) -> nn.Linear:
        found = model.get_submodule(self.module)
        assert isinstance(found, nn.Linear), "a sub-layer with units reads them by a linear layer"
        return found


def sub_layers(model: nn.Module) -> list[SubLayer]:
    """Lists the sub-layers that have units, in the order in which they run.

    Raises:
        InputError: no anatomy is known of the model's architecture.
    """
    anatomy = anatomy_of(model)
    return [sub for place, layer in enumerate(anatomy.layers) for sub in _of_layer(anatomy, place, layer)]


def _of_layer(anatomy: Anatomy, place: int, layer: Layer) -> Iterator[SubLayer]:
    parts: list[tuple[Kind, str, Attention | FeedForward]] = [
        ("attention", "head", layer.attention),
        ("feed-forward", "feed-forward unit", layer.feed_forward),
    ]
    norms = tuple(dict.fromkeys(name.rpartition(".")[0] for _, _, part in parts for name in part.norm))
    for kind, unit_kind, part in parts:
        units = tuple(unit for unit in anatomy.units(unit_kind) if unit.layer == layer.number)
        if units:  # a shrunk model may have sub-layers without
            yield SubLayer(kind, place, units, part.output, norms, layer_path(layer))


def layer_path(layer: Layer) -> str:
    """Returns the module that holds both sub-layers: what the names of their last matrices have in common."""
    both = (part.output.weight.split(".") for part in (layer.attention, layer.feed_forward))
    return ".".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*both, strict=False)))


@contextmanager
def gated(model: nn.Module, gates: Sequence[tuple[SubLayer, Tensor]]) -> Iterator[None]:
    """Multiplies what the output matrices read by gates of the units; differentiable in the gates.

    Layers that share their tensors share the gates, whose gradient is then the sum over all of them.

    Args:
        model: A transformers model.
        gates: Of some sub-layers: [units], or [rows, units] for gates of each row of a batch.
    """
    with ExitStack() as stack:
        for sub, gate in gates:
            columns = gate.repeat_interleave(sub.width, -1)
            stack.enter_context(_scaled_input(sub.matrix(model), columns))
        yield


@contextmanager
def _scaled_input(matrix: nn.Linear, columns: Tensor) -> Iterator[None]:
    def scale(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        if columns.dim() == 1:
            return (x * columns,)
        # Multiple choice has several rows of hidden states per row of a batch.
        rows = columns.repeat_interleave(len(x) // len(columns), 0)
        return (x * rows.view(len(x), *[1] * (x.dim() - 2), -1),)

    handle = matrix.register_forward_pre_hook(scale)
    try:
        yield
    finally:
        handle.remove()
