"""Defines the parts of a transformer encoder as slices of its tensors.

Reports, counting, structured gates and the shrinker read slices and nothing else, so none of them knows an
architecture.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from trainflat.core.errors import InputError, UnknownName

KINDS = (
    "head",
    "query-key dimension",
    "value-output dimension",
    "feed-forward unit",
    "hidden dimension",
    "attention sub-layer",
    "feed-forward sub-layer",
    "layer",
    "vocabulary entry",
)
"""Kinds of units that may be dropped whole. Weights, rows, columns and blocks are not listed: any matrix has them."""


@dataclass(frozen=True)
class Slice:
    """The entries ``start`` to ``stop`` (exclusive) of the tensor named ``tensor`` along ``axis``."""

    tensor: str
    axis: int
    start: int
    stop: int


@dataclass(frozen=True)
class Unit:
    """Groups the entries that are kept or dropped together.

    Attributes:
        kind: One of ``KINDS``.
        layer: Number of the layer, from 0; None for a unit that several layers share.
        index: Number within its kind and layer.
        producers: Slices that compute the unit's values, biases included: without its bias a unit with zero weights
            would still send a constant on.
        consumers: Slices that multiply the unit's values: if all of them are zero, nothing reads the unit. A hidden
            dimension is also read by the LayerNorms, whose mean and variance must then run over the kept ones alone.
    """

    kind: str
    layer: int | None
    index: int
    producers: tuple[Slice, ...]
    consumers: tuple[Slice, ...] = ()

    @property
    def slices(self) -> tuple[Slice, ...]:
        return self.producers + self.consumers


@dataclass(frozen=True)
class Linear:
    """Names a linear layer's tensors and its range of outputs, which is a part of them where matrices are fused.

    Attributes:
        weight: Name of the matrix [outputs, inputs].
        bias: Name of the bias [outputs], or None.
        start: First output of the layer.
        stop: Output after the last one.
        inputs: Number of columns. 0 where a shrunk model has nothing left that the layer could read, and so no matrix.
    """

    weight: str
    bias: str | None
    start: int
    stop: int
    inputs: int

    @property
    def outputs(self) -> int:
        return self.stop - self.start

    def rows(self, first: int, last: int) -> tuple[Slice, ...]:
        """Returns the slices of outputs ``first`` to ``last`` (exclusive), counted from the layer's own start."""
        span = (self.start + first, self.start + last)
        named = [self.weight] if self.has_weight else []
        return tuple(Slice(name, 0, *span) for name in (*named, *filter(None, [self.bias])))

    def columns(self, first: int, last: int) -> tuple[Slice, ...]:
        return (Slice(self.weight, 1, first, last),)

    @property
    def has_weight(self) -> bool:
        return self.inputs > 0

    def all_rows(self) -> tuple[Slice, ...]:
        return self.rows(0, self.outputs)


@dataclass(frozen=True)
class Attention:
    """Holds the linear layers of an attention sub-layer.

    Attributes:
        query: Projections whose outputs are multiplied with keys: the query's, and DeBERTa's of relative positions.
        key: Projections whose outputs are multiplied with queries.
        value: Projection of the values.
        output: The layer that reads the heads' outputs.
        head_size: Current width of a head's queries and keys.
        norm: Names of the LayerNorm's tensors; empty without one.
    """

    query: tuple[Linear, ...]
    key: tuple[Linear, ...]
    value: Linear
    output: Linear
    head_size: int
    norm: tuple[str, ...]

    @property
    def heads(self) -> int:
        return self.query[0].outputs // self.head_size

    def matrices(self) -> Iterator[tuple[str, str]]:
        """Yields the name and the kind of each matrix; a fused matrix once, under a kind of its own."""
        fused = len({self.query[0].weight, self.key[0].weight, self.value.weight}) == 1
        if not self.heads:
            return
        if fused:
            yield self.value.weight, "query_key_value"
        else:
            yield from ((one.weight, "query") for one in self.query)
            yield from ((one.weight, "key") for one in self.key)
            yield self.value.weight, "value"
        yield self.output.weight, "attention_output"


@dataclass(frozen=True)
class FeedForward:
    """Holds the linear layers of a feed-forward sub-layer.

    Attributes:
        inputs: Layers whose outputs make a unit: one, or two where one gates the other (GeGLU).
        output: The layer that reads the units.
        norm: Names of the LayerNorm's tensors.
    """

    inputs: tuple[Linear, ...]
    output: Linear
    norm: tuple[str, ...]

    def matrices(self) -> Iterator[tuple[str, str]]:
        if self.output.has_weight:
            yield from dict.fromkeys((one.weight, "ffn_in") for one in self.inputs)
            yield self.output.weight, "ffn_out"


@dataclass(frozen=True)
class Layer:
    """Pairs a layer's attention and feed-forward; ``number`` is None where all layers share them (ALBERT)."""

    number: int | None
    attention: Attention
    feed_forward: FeedForward


@dataclass(frozen=True)
class Anatomy:
    """Describes the layers, hidden states and vocabulary of one model.

    Attributes:
        family: Name of the architecture family.
        layers: Layers in the order in which they run; shared ones once.
        hidden_producers: Slices over the whole hidden width that write the hidden states, outside and inside layers.
        hidden_consumers: Slices over the whole hidden width that read the hidden states.
        hidden_size: Width of the hidden states.
        words: Name of the word embeddings [vocabulary, width], or None.
        vocabulary: Number of word embeddings.
        other: Kind of each prunable matrix outside the layers (the pooler's), by name.
        missing: Reason why the model has no units of a kind, by kind.
        pre_norm: Whether a LayerNorm stands before its sub-layer, not after the residual.
        rotary: Whether queries and keys are rotated by position, so that heads keep their size.
    """

    family: str
    layers: tuple[Layer, ...]
    hidden_producers: tuple[Slice, ...]
    hidden_consumers: tuple[Slice, ...]
    hidden_size: int
    words: str | None = None
    vocabulary: int = 0
    other: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    pre_norm: bool = False
    rotary: bool = False

    def matrices(self) -> dict[str, tuple[int | None, str]]:
        """Returns the layer number and the kind of each matrix that is pruned, by its name in the model.

        The kinds are ``query``, ``key``, ``value``, ``query_key_value``, ``attention_output``, ``ffn_in``, ``ffn_out``
        and ``pooler``.
        """
        # Named by part, not by module, so that reports of different families line up in one table.
        inside = {
            name: (layer.number, kind)
            for layer in self.layers
            for name, kind in chain(layer.attention.matrices(), layer.feed_forward.matrices())
        }
        return inside | {name: (None, kind) for name, kind in self.other.items()}

    def units(self, kind: str) -> list[Unit]:
        """Returns the units of one kind, in the order of their layers.

        Raises:
            UnknownName: there is no such kind.
            InputError: the model has no units of this kind; says why.
        """
        if kind not in KINDS:
            raise UnknownName("kind of unit", kind, KINDS)
        if kind in self.missing:
            raise InputError(f"{self.family} has no units of the kind {kind!r}: {self.missing[kind]}.")
        if kind == "hidden dimension":
            return [self._hidden(i) for i in range(self.hidden_size)]
        if kind == "vocabulary entry":
            assert self.words is not None, "a family without words says so in `missing`"
            return [Unit(kind, None, i, (Slice(self.words, 0, i, i + 1),)) for i in range(self.vocabulary)]
        # An empty sub-layer that has no bias either is no unit.
        return [unit for layer in self.layers for unit in _UNITS[kind](layer) if unit.slices]

    def _hidden(self, i: int) -> Unit:
        """Returns the hidden dimension ``i``: entry ``i`` of every slice that has the hidden width."""
        # All layers add to one residual stream, so a dimension can only be dropped from all of them at once.
        one = [
            tuple(Slice(s.tensor, s.axis, s.start + i, s.start + i + 1) for s in slices)
            for slices in (self.hidden_producers, self.hidden_consumers)
        ]
        return Unit("hidden dimension", None, i, *one)


def _heads(layer: Layer) -> Iterator[Unit]:
    a = layer.attention
    # Not head_size: once value-output dimensions are dropped a head's values are narrower than its queries.
    value = a.value.outputs // a.heads if a.heads else 0
    for j in range(a.heads):
        keys = chain.from_iterable(one.rows(j * a.head_size, (j + 1) * a.head_size) for one in (*a.query, *a.key))
        yield Unit(
            "head",
            layer.number,
            j,
            (*keys, *a.value.rows(j * value, (j + 1) * value)),
            a.output.columns(j * value, (j + 1) * value),
        )


def _query_key_dimensions(layer: Layer) -> Iterator[Unit]:
    # q_i * k_i is a term of the attention logit, 0 as soon as either side is: both are producers, and none consumes.
    for i in range(layer.attention.query[0].outputs):
        sides = (*layer.attention.query, *layer.attention.key)
        slices = chain.from_iterable(one.rows(i, i + 1) for one in sides)
        yield Unit("query-key dimension", layer.number, i, tuple(slices))


def _value_output_dimensions(layer: Layer) -> Iterator[Unit]:
    a = layer.attention
    for i in range(a.value.outputs):
        yield Unit("value-output dimension", layer.number, i, a.value.rows(i, i + 1), a.output.columns(i, i + 1))


def _feed_forward_units(layer: Layer) -> Iterator[Unit]:
    f = layer.feed_forward
    for i in range(f.output.inputs):
        producers = tuple(chain.from_iterable(one.rows(i, i + 1) for one in f.inputs))
        yield Unit("feed-forward unit", layer.number, i, producers, f.output.columns(i, i + 1))


def _attention(layer: Layer) -> Iterator[Unit]:
    a = layer.attention
    inner = chain.from_iterable(one.all_rows() for one in (*a.query, *a.key, a.value))
    yield Unit("attention sub-layer", layer.number, 0, tuple(inner), a.output.all_rows())


def _feed_forward(layer: Layer) -> Iterator[Unit]:
    f = layer.feed_forward
    inner = tuple(chain.from_iterable(one.all_rows() for one in f.inputs))
    yield Unit("feed-forward sub-layer", layer.number, 0, inner, f.output.all_rows())


def _layers(layer: Layer) -> Iterator[Unit]:
    (attention,), (feed_forward,) = _attention(layer), _feed_forward(layer)
    producers, consumers = (a + b for a, b in zip(*map(_sides, (attention, feed_forward)), strict=True))
    yield Unit("layer", layer.number, 0, producers, consumers)


def _sides(unit: Unit) -> tuple[tuple[Slice, ...], tuple[Slice, ...]]:
    return unit.producers, unit.consumers


_UNITS = {
    "head": _heads,
    "query-key dimension": _query_key_dimensions,
    "value-output dimension": _value_output_dimensions,
    "feed-forward unit": _feed_forward_units,
    "attention sub-layer": _attention,
    "feed-forward sub-layer": _feed_forward,
    "layer": _layers,
}
