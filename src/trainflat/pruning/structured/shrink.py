"""Makes a model physically smaller: takes out what is not kept, and folds soft factors into what is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.anatomy import Anatomy, Attention, FeedForward, Layout, Slice, anatomy_of, layout_of
from trainflat.anatomy.narrow import SKIP, layer_paths
from trainflat.anatomy.params import unwrapped
from trainflat.anatomy.shrunk import auto_map, built_with, dense_class, is_shrunk, shrunk_config, shrunk_model
from trainflat.pruning.structured.cuts import Cuts
from trainflat.pruning.structured.kept import Kept, KeptLayer, State
from trainflat.pruning.structured.refusals import check

_OWN = ("per_layer_config", "dense_hidden_size", "head_dim", "position_heads", "auto_map")  # keys of shrunk models


def shrink(model: nn.Module, kept: Kept) -> Any:
    """Returns a smaller model that computes what the given one would with its units multiplied by their factors.

    Units multiply where methods-structured.md A1.2 has CoFi's gates (Xia, Zhong and Chen, ACL 2022): a head its output,
    a query-key dimension its term of the attention score, a value-output dimension its entry of the head's output, a
    feed-forward unit its activation, a sub-layer what it adds to the residual, bias included; a hidden dimension each
    output that is added to the hidden states, and that of each LayerNorm, which runs over the kept dimensions. Folding
    departs from CoFi's code, which scales consumers and is exact for factors of 0 and 1 only.

    Within a layer, heads are padded with zeros to the widest one's dimensions, so that the attention kernels of
    transformers run as they are. A layer of which both sub-layers are skipped is taken out of the stack, as far as its
    architecture lets it.

    Args:
        model: A transformers model of a known architecture; it is not changed.
        kept: Factors of its units.

    Returns:
        A transformers model in the same mode, type and place. Where the architecture's own config can describe it (at
        most fewer layers, fewer words, and equally fewer feed-forward units in all layers) it is of the same class;
        else of one derived from it, which ``from_pretrained`` finds once trainflat is imported.

    Raises:
        InputError: what is kept is another model's, or something of it cannot be taken out exactly.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> sizes = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=2, intermediate_size=6, vocab_size=9)
        >>> model = BertModel(BertConfig(**sizes))
        >>> anatomy = anatomy_of(model)
        >>> small = shrink(model, Kept.all(anatomy).without(anatomy.units("head")[:1]))
        >>> type(small).__name__, small.config.per_layer_config
        ('ShrunkBertModel', {'0': {'num_attention_heads': 1}})
    """
    plain: Any = unwrapped(model)
    layout, anatomy = layout_of(plain), anatomy_of(plain)
    check(plain, layout, anatomy, kept)
    shrinking = _Shrinking(plain, layout, anatomy, kept)
    return shrinking.built().to(plain.device).train(plain.training)


@dataclass(frozen=True)
class _Sublayer:
    """Says what becomes of one sub-layer: its state, the heads that are kept, their new size, and the units' number."""

    state: State
    heads: tuple[int, ...] = ()
    size: int = 0
    units: int = 0


class _Shrinking:
    """Shrinks one model: plans the cuts of its tensors and the config of what comes out."""

    def __init__(self, model: Any, layout: Layout, anatomy: Anatomy, kept: Kept) -> None:
        self.model, self.layout, self.anatomy, self.kept = model, layout, anatomy, kept
        self.cuts = Cuts()
        self._cut_hidden()
        self._cut_vocabulary()
        self.sublayers = [
            (self._attention(layer.attention, own), self._feed_forward(layer.feed_forward, own))
            for layer, own in zip(anatomy.layers, kept.layers, strict=True)
        ]
        self.left = self._layers_left()

    def _cut_hidden(self) -> None:
        hidden = self.kept.hidden
        if (hidden == 1).all():
            return
        index = hidden.nonzero().flatten()
        self.cuts.take(self.anatomy.hidden_producers, index, hidden[index])
        self.cuts.take(self.anatomy.hidden_consumers, index, torch.ones_like(hidden[index]))

    def _cut_vocabulary(self) -> None:
        rows = self.kept.vocabulary
        if (rows == 1).all():
            return
        index = rows.nonzero().flatten()
        spans = [Slice(name, 0, 0, len(rows)) for name in self._word_tensors()]
        self.cuts.take(spans, index, rows[index])

    def _word_tensors(self) -> list[str]:
        """Names the tensors with a row per word: the embeddings, and the decoder of a language model."""
        decoder = self.model.get_output_embeddings()
        tensors = {id(self.model.get_input_embeddings().weight)}
        if decoder is not None:
            tensors |= {id(p) for p in decoder.parameters(recurse=False)}
        named = self.model.named_parameters(remove_duplicate=False)
        return [name for name, p in named if id(p) in tensors]

    def _attention(self, part: Attention, own: KeptLayer) -> _Sublayer:
        state = self._state(own.attention_state, part)
        self._leave(state, part, (*part.query, *part.key, part.value), own.attention)
        if state != "alive":
            return _Sublayer(state)
        scores, values = own.query_key.view(part.heads, -1), own.value_output.view(part.heads, -1)
        heads = own.kept_heads()
        size = part.head_size if self.layout.rotary else own.widest_head()
        # The model divides scores by the root of a head's new size.
        fold = self.layout.scale(part.head_size, self.model.config) / self.layout.scale(size, self.model.config)
        index, factors = _padded(scores, heads, size)
        for one in part.query:
            self.cuts.take(one.all_rows(), index, factors * fold)
        for one in part.key:
            self.cuts.take(one.all_rows(), index, (factors != 0).double())
        index, factors = _padded(values * own.heads[:, None], heads, size)
        self.cuts.take(part.value.all_rows(), index, (factors != 0).double())
        self.cuts.take(part.output.columns(0, part.output.inputs), index, factors)
        return _Sublayer(state, heads, size)

    def _feed_forward(self, part: FeedForward, own: KeptLayer) -> _Sublayer:
        state = self._state(own.feed_forward_state, part)
        self._leave(state, part, part.inputs, own.feed_forward)
        if state != "alive":
            return _Sublayer(state)
        index = own.units.nonzero().flatten()
        for one in part.inputs:
            self.cuts.take(one.all_rows(), index, torch.ones(len(index), dtype=torch.float64))
        self.cuts.take(part.output.columns(0, part.output.inputs), index, own.units[index])
        return _Sublayer(state, units=len(index))

    def _state(self, state: State, part: Attention | FeedForward) -> State:
        # Without a bias and a LayerNorm after it, as one that was skipped before, an empty sub-layer adds nothing.
        nothing = part.output.bias is None and (self.layout.pre_norm or not part.norm)
        return "skipped" if nothing and state == "bias-only" else state

    def _leave(self, state: State, part: Attention | FeedForward, inputs: Iterable[Any], factor: float) -> None:
        """Scales what a sub-layer adds to the residual; drops the tensors of an empty or skipped one."""
        self.cuts.scale(part.output.all_rows(), factor)
        if state == "alive":
            return
        self.cuts.drop(inputs)
        self.cuts.drop([part.output], biases=state == "skipped")
        if state == "skipped" or self.layout.pre_norm:
            self.cuts.drop_named(part.norm)

    def _layers_left(self) -> list[int]:
        """Returns the numbers of the layers that stay in the stack; at least one does."""
        numbers = range(len(self.sublayers))
        if self.layout.shared:
            return list(numbers)
        paths = {name for name, _ in self.model.base_model.named_modules()}
        fixed = bool(paths & set(self.layout.first_layer))
        alive = {i for i in numbers if any(one.state != "skipped" for one in self.sublayers[i])}
        return sorted(alive | ({0} if fixed or not alive else set()))

    def built(self) -> Any:
        """Builds the new model."""
        config, kind = self.config_and_class()
        with torch.device("meta"):  # no weight is drawn
            made = kind(config, **built_with(self.model))
        made.load_state_dict(self._renumbered(self.cuts.apply(self.model.state_dict())), assign=True)
        made.tie_weights()  # the state has each name's own copy
        # Buffers that no state holds, such as the numbers of positions, depend on no width.
        computed = self._renumbered(dict(self.model.named_buffers()))
        for name, buffer in list(made.named_buffers()):
            if buffer.is_meta:
                owner, _, last = name.rpartition(".")
                setattr(made.get_submodule(owner), last, computed[name].detach().clone())
        return made

    def _renumbered(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Renames tensors for the new stack of layers; drops the tensors of layers that are taken out of it."""
        if self.layout.shared:
            return state
        encoder = self.model.base_model
        root = next(f"{name}." if name else "" for name, one in self.model.named_modules() if one is encoder)
        paths = [f"{root}{path}." for path in layer_paths(encoder, self.layout.layer)]
        moved = {paths[old]: paths[new] for new, old in enumerate(self.left)}
        return {new: tensor for name, tensor in state.items() if (new := _new_name(name, paths, moved))}

    def config_and_class(self) -> tuple[Any, Any]:
        """Returns the new model's config and its class."""
        old, dense = self.model.config, dense_class(type(self.model.config))
        kind = dense_class(type(self.model))
        units = self._plain_units()
        values = old.to_dict() | self._common()
        if units is None:
            values |= self._own_values(auto_map(dense))
            kind, made = shrunk_model(kind), shrunk_config(dense)
        else:
            values = {k: v for k, v in values.items() if k not in _OWN or not is_shrunk(old.model_type)}
            values[self.layout.intermediate] = units
            made = dense
        del values["model_type"], values["transformers_version"]
        config = made.from_dict(values | {"architectures": [kind.__name__]})
        config._attn_implementation = getattr(old, "_attn_implementation", None)
        return config, kind

    def _common(self) -> dict[str, Any]:
        """Returns the values that plain and shrunk configs have alike."""
        old = self.model.config
        values: dict[str, Any] = {} if self.layout.shared else {_key(old, "num_hidden_layers"): len(self.left)}
        if isinstance(getattr(old, "layer_types", None), list):
            values["layer_types"] = [old.layer_types[i] for i in self.left]
        if len(self.kept.vocabulary):
            values["vocab_size"] = int(self.kept.vocabulary.count_nonzero())
            values |= _moved_ids(old, self.kept.vocabulary)
        return values

    def _plain_units(self) -> int | None:
        """Returns the feed-forward units of every layer, if the architecture's own config can describe the model."""
        config = self.model.config
        heads, size, hidden = _dense_sizes(config)
        left = [self.sublayers[i] for i in self.left]
        alike = {(a.state, len(a.heads), a.size, f.state, f.units) for a, f in left}
        if len(alike) > 1 or int(self.kept.hidden.count_nonzero()) != hidden:
            return None
        [(*attention, feed_forward, units)] = alike
        return units if (*attention, feed_forward) == ("alive", heads, size, "alive") else None

    def _own_values(self, files: dict[str, str]) -> dict[str, Any]:
        """Returns the values that only a shrunk config has."""
        heads, size, hidden = _dense_sizes(self.model.config)
        units = getattr(self.model.config, self.layout.intermediate)
        # ALBERT's one set of tensors is that of each layer that runs.
        runs = range(self.model.config.num_hidden_layers) if self.layout.shared else self.left
        own = {str(i): self.sublayers[0 if self.layout.shared else old] for i, old in enumerate(runs)}
        layers = {name: _differences(*one, heads, size, units) for name, one in own.items()}
        values: dict[str, Any] = {
            _key(self.model.config, "hidden_size"): int(self.kept.hidden.count_nonzero()),
            "dense_hidden_size": hidden,
            "head_dim": size,
            "per_layer_config": {name: one for name, one in layers.items() if one},
            "auto_map": files,
        }
        return values | ({"position_heads": self._columns(heads)} if self.layout.position_scores else {})

    def _columns(self, heads: int) -> dict[str, list[int]]:
        """Returns the columns of the shared table of positions that heads read, of each layer that lost some."""
        config, found = self.model.config, {}
        for new, old in enumerate(self.left):
            before = config.columns(old) if is_shrunk(config.model_type) else None
            columns = [(before or range(heads))[j] for j in self.sublayers[old][0].heads]
            if columns and len(columns) < heads:
                found[str(new)] = columns
        return found


def _padded(values: Tensor, heads: tuple[int, ...], size: int) -> tuple[Tensor, Tensor]:
    """Returns numbers and factors of the dimensions [heads, dimensions] that are kept, padded to a size per head."""
    index, factors = torch.zeros(len(heads), size, dtype=torch.long), values.new_zeros(len(heads), size)
    for row, j in enumerate(heads):
        kept = values[j].nonzero().flatten()
        index[row, : len(kept)] = j * values.shape[1] + kept
        factors[row, : len(kept)] = values[j, kept]
    return index.flatten(), factors.flatten()


def _differences(
    attention: _Sublayer, feed_forward: _Sublayer, heads: int, size: int, units: int
) -> dict[str, int | list[str]]:
    """Returns what ``per_layer_config`` has of a layer: where it differs from the dense widths."""
    # A skipped sub-layer has widths of 0 too; else transformers' own classes would build it, and fill it at random.
    widths: dict[str, int | list[str]] = {"num_attention_heads": len(attention.heads)}
    widths |= {"head_dim": attention.size or size, "intermediate_size": feed_forward.units}
    dense = {"num_attention_heads": heads, "head_dim": size, "intermediate_size": units}
    skip = [name for name, one in zip(SKIP, (attention, feed_forward), strict=True) if one.state == "skipped"]
    return {k: v for k, v in widths.items() if v != dense[k]} | ({"skip": skip} if skip else {})


def _dense_sizes(config: Any) -> tuple[int, int, int]:
    """Returns heads, their size and the hidden width of the dense model that a config comes from."""
    hidden = getattr(config, "dense_hidden_size", config.hidden_size)
    heads = config.num_attention_heads
    return heads, getattr(config, "head_dim", None) or hidden // heads, hidden


def _key(config: Any, name: str) -> str:
    return str(config.attribute_map.get(name, name))


def _moved_ids(config: Any, rows: Tensor) -> dict[str, Any]:
    """Returns the new numbers of a config's special tokens; None for one that is dropped."""
    places = rows.ne(0).cumsum(0) - 1

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if not isinstance(value, int) or not 0 <= value < len(rows):
            return value
        return int(places[value]) if rows[value] != 0 else None

    return {key: moved(value) for key, value in config.to_dict().items() if key.endswith("_token_id")}


def _new_name(name: str, paths: list[str], moved: dict[str, str]) -> str:
    """Returns a tensor's name in the new stack of layers; nothing for one of a layer that is taken out."""
    path = next((one for one in paths if name.startswith(one)), None)
    if path is None:
        return name
    return moved[path] + name.removeprefix(path) if path in moved else ""
