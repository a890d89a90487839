"""Maps the parts of an architecture family to module names; sizes are read from the model's tensors.

Not from its config: after structured pruning layers differ in width, and a config has one number for all of them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

from torch import Tensor, nn

from trainflat.anatomy.base import Anatomy, Attention, FeedForward, Layer, Linear, Slice
from trainflat.anatomy.narrow import layer_paths

# Modules of task heads that may read the hidden states, nearest to the encoder first: a classifier behind a pooler
# reads the pooler's output, so only the first one that exists has columns of hidden dimensions. `{}` is the encoder.
READERS = (
    "{}.pooler.dense",
    "{}.pooler",
    "pooler.dense",
    "pre_classifier",
    "classifier.dense",
    "head.dense",
    "cls.predictions.transform.dense",
    "lm_head.dense",
    "vocab_transform",
    "predictions.dense",
    "qa_outputs",
    "classifier",
)


@dataclass(frozen=True)
class Part:
    """Names a linear module inside a layer, or part ``index`` of the ``of`` equal parts of a fused matrix's outputs."""

    module: str
    index: int = 0
    of: int = 1


def _inverse_root(size: int, config: Any) -> float:
    return 1 / math.sqrt(size)


@dataclass(frozen=True)
class Layout:
    """Lists the module names of one architecture family.

    Attributes:
        family: Name of the family.
        layer: Path of a layer from the encoder; the first ``#`` stands for the layer's number.
        query, key: Projections that attention multiplies with each other; those that the model lacks are skipped.
        value, attention_output, ffn_in, ffn_out: As in :class:`Attention` and :class:`FeedForward`.
        attention_norm, ffn_norm: LayerNorms of the two sub-layers; ModernBERT's first layer has none for its attention.
        attention_core, ffn_core: Modules that compute from the hidden states what the output matrices read; the output
            matrix, and in ALBERT the LayerNorm, may be inside.
        embeddings: Modules and parameters of the encoder that write the hidden states, with their axis of the hidden
            width: 1 for tables [entries, hidden], 0 for layers [hidden, inputs], 2 for vectors [1, n, hidden].
        norms: LayerNorms outside the layers that normalise the hidden states.
        projection: Layer of the encoder that widens narrower embeddings to the hidden states. In a model that has it,
            nothing before it has the hidden width.
        readers: Modules that may read the hidden states, nearest to the encoder first, from the whole model's root
            (``{}`` is the encoder); only the first one that exists does.
        shared: Whether all layers share their tensors, so that they have no numbers.
        pooler: Module of the encoder that is pruned with the layers.
        missing: Kinds of units that the family cannot have, with the reason.
        pre_norm: Whether a LayerNorm stands before its sub-layer, not after the residual.
        rotary: Whether queries and keys are rotated by position, so that heads keep their size.
        position_scores: Whether all layers share scores of positions with an entry per head, which the attention takes
            as its third argument.
        positions_from_pad: Whether positions are counted from the padding token's number.
        first_layer: Reason why the first layer cannot be taken out of the stack, by a module that makes it so.
        mixers: Reason why no hidden dimension can be dropped, by a module that makes it so.
        scale: Factor of the attention scores for a head size and a config, to the digits that the model computes with.
        intermediate: The config's name of the number of feed-forward units.
    """

    family: str
    layer: str
    query: tuple[Part, ...]
    key: tuple[Part, ...]
    value: Part
    attention_output: str
    attention_norm: str
    ffn_in: tuple[Part, ...]
    ffn_out: str
    ffn_norm: str
    embeddings: Mapping[str, int]
    norms: tuple[str, ...]
    readers: tuple[str, ...] = READERS
    projection: str = ""
    shared: bool = False
    pooler: str = "pooler.dense"
    missing: Mapping[str, str] = field(default_factory=dict)
    attention_core: str = ""
    ffn_core: str = ""
    pre_norm: bool = False
    rotary: bool = False
    position_scores: bool = False
    positions_from_pad: bool = False
    first_layer: Mapping[str, str] = field(default_factory=dict)
    mixers: Mapping[str, str] = field(default_factory=dict)
    scale: Callable[[int, Any], float] = _inverse_root
    intermediate: str = "intermediate_size"

    def names(self) -> dict[str, Any]:
        """Lists, as plain data, the names by which :mod:`trainflat.anatomy.narrow` builds a model."""
        attention, mlp = (
            {"core": core, "inputs": list(dict.fromkeys((one.module, one.of) for one in inputs))}
            for core, inputs in (
                (self.attention_core, (*self.query, *self.key, self.value)),
                (self.ffn_core, self.ffn_in),
            )
        )
        return {
            "layer": self.layer,
            "attention": {**attention, "output": self.attention_output, "norm": self.attention_norm},
            "mlp": {**mlp, "output": self.ffn_out, "norm": self.ffn_norm},
            "embeddings": dict(self.embeddings),
            "norms": list(self.norms),
            "projection": self.projection,
            "readers": list(self.readers),
            **{
                name: getattr(self, name)
                for name in ("pre_norm", "rotary", "position_scores", "shared", "intermediate")
            },
        }

    def read(self, model: nn.Module) -> Anatomy:
        """Returns the anatomy of a model of this family, with the current sizes of its tensors."""
        return _Reader(self, model).anatomy()


class _Reader:
    """Reads one model by its family's layout."""

    def __init__(self, layout: Layout, model: nn.Module) -> None:
        self.layout, self.model = layout, model
        encoder: nn.Module = model.base_model  # type: ignore[assignment]  # of transformers.PreTrainedModel
        self.encoder = encoder
        self.root = next(f"{name}." if name else "" for name, one in model.named_modules() if one is encoder)
        # With all names of tied tensors: by default torch lists one of them, not always the one in the layout.
        self.tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))

    def anatomy(self) -> Anatomy:
        layout = self.layout
        layers = tuple(self._layers())
        words = self._words()
        hidden = self._hidden(layers)
        missing = dict(layout.missing)
        if words is None:
            missing["vocabulary entry"] = "it reads no words"
        pooler = f"{self.root}{layout.pooler}.weight"
        return Anatomy(
            family=layout.family,
            layers=layers,
            hidden_producers=tuple(self._producers(layers, hidden)),
            hidden_consumers=tuple(self._consumers(layers, hidden)),
            hidden_size=hidden,
            words=words,
            vocabulary=0 if words is None else self.tensors[words].shape[0],
            other={pooler: "pooler"} if pooler in self.tensors else {},
            missing=missing,
            pre_norm=layout.pre_norm,
            rotary=layout.rotary,
        )

    def _hidden(self, layers: tuple[Layer, ...]) -> int:
        """Returns the width that a layer writes; the config's where no layer has anything left to write."""
        outputs = (one.output for layer in layers for one in (layer.attention, layer.feed_forward))
        return next((one.outputs for one in outputs if one.outputs), int(cast(Any, self.model.config).hidden_size))

    def _layers(self) -> Iterator[Layer]:
        for number, path in enumerate(layer_paths(self.encoder, self.layout.layer)):
            full = f"{self.root}{path}."
            attention, feed_forward = self._attention(full, number), self._feed_forward(full)
            yield Layer(None if self.layout.shared else number, attention, feed_forward)

    def _attention(self, path: str, number: int) -> Attention:
        layout, config = self.layout, cast(Any, self.model.config)
        query, key = (
            # All of them may be gone; then the first stands for none.
            tuple(self._linear(path, part) for part in parts if self._has(path, part) or part is parts[0])
            for parts in (layout.query, layout.key)
        )
        output = self._linear(path, Part(layout.attention_output))
        # The one size that no tensor has: [768, 768] is 12 heads of 64 or 16 of 48.
        own = config.layer(number) if hasattr(config, "dense_hidden_size") else {}
        size = own.get("head_dim") or getattr(config, "head_dim", None)
        size = size or config.hidden_size // config.num_attention_heads
        value = self._linear(path, layout.value)
        return Attention(query, key, value, output, size, self._norm(path + layout.attention_norm))

    def _feed_forward(self, path: str) -> FeedForward:
        inputs = tuple(self._linear(path, part) for part in self.layout.ffn_in)
        output = self._linear(path, Part(self.layout.ffn_out))
        return FeedForward(inputs, output, self._norm(path + self.layout.ffn_norm))

    def _has(self, path: str, part: Part) -> bool:
        return f"{path}{part.module}.weight" in self.tensors

    def _linear(self, path: str, part: Part) -> Linear:
        name = f"{path}{part.module}"
        weight, bias = f"{name}.weight", f"{name}.bias"
        own = bias if bias in self.tensors else None
        if weight not in self.tensors:  # of an empty sub-layer, where an output may have its bias left
            return Linear(weight, own, 0, 0 if own is None else len(self.tensors[bias]), 0)
        outputs, inputs = self.tensors[weight].shape
        size = outputs // part.of
        return Linear(weight, own, part.index * size, (part.index + 1) * size, inputs)

    def _norm(self, path: str) -> tuple[str, ...]:
        """Returns the names of a LayerNorm's tensors; empty where the model has ``nn.Identity`` in its place."""
        return tuple(name for name in (f"{path}.weight", f"{path}.bias") if name in self.tensors)

    def _words(self) -> str | None:
        """Returns the name of the word embeddings; None for models of images."""
        if not hasattr(self.model.config, "vocab_size"):
            return None
        # By identity, as a tied decoder's weight is the same tensor under a second name.
        table = self.model.get_input_embeddings().weight  # type: ignore[operator]
        return next(name for name, tensor in self.tensors.items() if tensor is table)

    def _producers(self, layers: tuple[Layer, ...], hidden: int) -> Iterator[Slice]:
        projected = f"{self.root}{self.layout.projection}.weight" in self.tensors
        embeddings = {self.layout.projection: 0} if projected else self.layout.embeddings
        for path, axis in embeddings.items():
            yield from self._embedding(f"{self.root}{path}", axis, hidden)
        outside = () if projected else self.layout.norms
        norms = chain.from_iterable(self._norm(f"{self.root}{path}") for path in outside)
        inside = chain.from_iterable((*one.attention.norm, *one.feed_forward.norm) for one in layers)
        yield from (Slice(name, 0, 0, hidden) for name in (*norms, *inside))
        for one in layers:
            yield from one.attention.output.all_rows()
            yield from one.feed_forward.output.all_rows()

    def _embedding(self, path: str, axis: int, hidden: int) -> Iterator[Slice]:
        if path in self.tensors:  # a parameter of its own, such as ViT's class token
            yield Slice(path, axis, 0, hidden)
        if f"{path}.weight" in self.tensors:
            yield Slice(f"{path}.weight", axis, 0, hidden)
            if f"{path}.bias" in self.tensors:
                yield Slice(f"{path}.bias", 0, 0, hidden)

    def _consumers(self, layers: tuple[Layer, ...], hidden: int) -> Iterator[Slice]:
        for one in layers:
            linears = (*one.attention.query, *one.attention.key, one.attention.value, *one.feed_forward.inputs)
            names = dict.fromkeys(linear.weight for linear in linears if linear.has_weight)
            yield from (Slice(name, 1, 0, hidden) for name in names)
        yield from (Slice(name, 1, 0, hidden) for name in self._readers())

    def _readers(self) -> list[str]:
        """Returns the matrix of the task head that reads the hidden states, if there is one."""
        names = (f"{path.replace('{}.', self.root)}.weight" for path in self.layout.readers)
        return [name for name in names if name in self.tensors][:1]
