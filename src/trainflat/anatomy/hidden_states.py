"""Records the hidden states between a model's layers, by hooks that work for every known architecture."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor, nn

from trainflat.anatomy.families import layout_of
from trainflat.anatomy.narrow import layer_paths
from trainflat.anatomy.params import unwrapped


def depth_of(model: nn.Module) -> int:
    """Counts the layers that a model runs, a shared one each time."""
    layout = layout_of(model)
    if layout.shared:
        return int(cast(Any, model.config).num_hidden_layers)
    return len(layer_paths(cast(Any, model).base_model, layout.layer))


def alive_layers(model: nn.Module) -> list[bool]:
    """Returns which layers have a head or a feed-forward unit left, in the order in which they run."""
    layout = layout_of(model)
    found = [layer.attention.heads > 0 or layer.feed_forward.output.inputs > 0 for layer in layout.read(model).layers]
    return found * depth_of(model) if layout.shared else found


@contextmanager
def recorded_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Fills a list, in each forward pass inside the block, with what the first layer reads and what each layer returns.

    It is emptied when the next pass begins. Hooks in place of ``output_hidden_states``: layers of a shrunk model return
    what they do here, whatever its class does with that option, and a pass computes the same bits as without.

    Raises:
        InputError: no layout of ``FAMILIES`` has the model's architecture.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> model = BertModel(BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=3, vocab_size=9))
        >>> with recorded_states(model) as states:
        ...     last = model(torch.tensor([[1, 2]])).last_hidden_state
        >>> len(states), states[-1] is last
        (4, True)
    """
    plain: Any = unwrapped(model)
    pattern, encoder = layout_of(plain).layer, plain.base_model
    layers = [encoder.get_submodule(path) for path in layer_paths(encoder, pattern)]
    recorder = _Recorder()
    with ExitStack() as stack:
        hooks = [
            plain.register_forward_pre_hook(recorder.begin),
            layers[0].register_forward_pre_hook(recorder.before, with_kwargs=True),
            *(layer.register_forward_hook(recorder.after) for layer in layers),
            plain.register_forward_hook(recorder.end),
        ]
        for hook in hooks:
            stack.callback(hook.remove)
        yield recorder.states


class _Recorder:
    """Holds the hidden states of a pass, from its beginning to its end.

    Activation checkpointing runs layers again in the backward pass, where nothing is recorded.
    """

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self._runs = False

    def begin(self, *_: Any) -> None:
        self.states.clear()
        self._runs = True

    def before(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        if self._runs and not self.states:
            self.states.append(args[0] if args else kwargs["hidden_states"])

    def after(self, _: nn.Module, __: Any, output: Any) -> None:
        if self._runs:
            self.states.append(output[0] if isinstance(output, tuple) else output)

    def end(self, *_: Any) -> None:
        self._runs = False
