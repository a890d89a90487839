"""The parts of a transformer encoder, as slices of its tensors."""

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
"""The kinds of units that may be dropped whole; weights, rows, columns and blocks are units of any matrix."""


@dataclass(frozen=True)
class Slice:
    """The entries ``start`` to ``stop`` (exclusive) of the tensor named ``tensor`` along ``axis``."""

    tensor: str
    axis: int
    start: int
    stop: int


@dataclass(frozen=True)
class Unit:
    """Entries that are kept or dropped together.

    Attributes:
        kind: One of ``KINDS``.
        layer: Number of the layer, from 0 on; None for what is not part of a single layer.
        index: Number within its kind and layer.
        producers: Slices that compute the unit's values.
        consumers: Slices that multiply them: where all of these are zero, nothing reads the unit. A hidden dimension
            is also seen by the LayerNorms, which then must run over the kept dimensions alone.
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
    """A linear layer's tensors, or one of ``parts`` equal shares of its outputs where matrices are fused.

    Attributes:
        weight: Name of the matrix [outputs, inputs].
        bias: Name of the bias [outputs], or None.
        start: First output that belongs to it.
        stop: Output after the last.
        inputs: Number of columns.
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
        """Returns the slices of its outputs ``first`` to ``last`` (exclusive), counted from its own start."""
        span = (self.start + first, self.start + last)
        named = [self.weight] if self.bias is None else [self.weight, self.bias]
        return tuple(Slice(name, 0, *span) for name in named)

    def columns(self, first: int, last: int) -> tuple[Slice, ...]:
        return (Slice(self.weight, 1, first, last),)

    def all_rows(self) -> tuple[Slice, ...]:
        return self.rows(0, self.outputs)


@dataclass(frozen=True)
class Attention:
    """The attention of a layer.

    Attributes:
        query: Linear layers whose outputs meet keys: the query, and in DeBERTa that of relative positions.
        key: Linear layers whose outputs meet queries.
        value: The values' layer.
        output: The layer that reads the heads.
        head_size: Width of a head's queries and keys as the model computes it now.
        norm: Names of the LayerNorm's tensors.
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
        """Yields the name and the kind of each matrix; a fused one once."""
        fused = len({self.query[0].weight, self.key[0].weight, self.value.weight}) == 1
        if fused:
            yield self.value.weight, "query_key_value"
        else:
            yield from ((one.weight, "query") for one in self.query)
            yield from ((one.weight, "key") for one in self.key)
            yield self.value.weight, "value"
        yield self.output.weight, "attention_output"


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward part of a layer.

    Attributes:
        inputs: The layers whose outputs make a unit: one, or two where one gates the other.
        output: The layer that reads the units.
        norm: Names of the LayerNorm's tensors.
    """

    inputs: tuple[Linear, ...]
    output: Linear
    norm: tuple[str, ...]

    def matrices(self) -> Iterator[tuple[str, str]]:
        yield from dict.fromkeys((one.weight, "ffn_in") for one in self.inputs)
        yield self.output.weight, "ffn_out"


@dataclass(frozen=True)
class Layer:
    """One layer; ``number`` is None where all layers share it (ALBERT)."""

    number: int | None
    attention: Attention
    feed_forward: FeedForward


@dataclass(frozen=True)
class Anatomy:
    """What a model is made of.

    Attributes:
        family: Name of the architecture family.
        layers: In the order in which they run; shared ones once.
        hidden_producers: Slices over the whole hidden width that write the hidden states (outside and inside layers).
        hidden_consumers: Slices over the whole hidden width that read them.
        hidden_size: Width of the hidden states.
        words: Name of the word table [vocabulary, width], or None.
        vocabulary: Number of its rows.
        other: Kinds of the pruned matrices that are in no layer, by name: the pooler's.
        missing: Why the model has no units of a kind, by kind.
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

    def matrices(self) -> dict[str, tuple[int | None, str]]:
        """Returns the layer number and the kind of each matrix that is pruned, by its name in the model.

        The kinds are ``query``, ``key``, ``value``, ``query_key_value``, ``attention_output``, ``ffn_in``, ``ffn_out``
        and ``pooler``.
        """
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
            InputError: the model has no units of this kind.
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
        return [unit for layer in self.layers for unit in _UNITS[kind](layer)]

    def _hidden(self, i: int) -> Unit:
        """Returns the hidden dimension ``i``: entry ``i`` of every slice that has the hidden width."""
        one = [
            tuple(Slice(s.tensor, s.axis, s.start + i, s.start + i + 1) for s in slices)
            for slices in (self.hidden_producers, self.hidden_consumers)
        ]
        return Unit("hidden dimension", None, i, *one)


def _heads(layer: Layer) -> Iterator[Unit]:
    a = layer.attention
    value = a.value.outputs // a.heads if a.heads else 0  # as wide as a query only until dimensions are dropped
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
    # Queries and keys meet in a product: either side being zero silences the dimension, so both sides are producers.
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
