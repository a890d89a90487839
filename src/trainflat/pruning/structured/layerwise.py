"""Runs a model layer by layer over calibration batches, the dense model beside the one that is being pruned.

A whole-model pass per sub-layer would cost as many passes as there are sub-layers. Here all of them together cost one
pass that catches what each layer is called with, one of the dense layers, and less than three of the pruned ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.objective.state_guard import preserve_state
from trainflat.pruning.structured.sub_layers import SubLayer, layer_path, sub_layers

Batch = Mapping[str, Tensor]

_ANSWERS = ("labels", "start_positions", "end_positions")


@dataclass(frozen=True)
class Seen:
    """Holds what one output matrix saw of one batch, at N positions that are no padding.

    Attributes:
        inputs: What the matrix read in the pruned model [N, inputs].
        target: What it should have put out [N, outputs]: the dense model's hidden states after the sub-layer, before
            the LayerNorm if one follows, less those that pass the pruned model's sub-layer by. So what went wrong in
            earlier sub-layers is to be mended too (K-prune, ICLR 2024, arXiv:2308.03449; STAT, arXiv:2406.00061).
    """

    inputs: Tensor
    target: Tensor


def rows_of(batches: Sequence[Batch]) -> int:
    """Counts the rows of all batches.

    Raises:
        InputError: there are none.
    """
    rows = sum(len(next(iter(batch.values()))) for batch in batches)
    if not rows:
        raise InputError("there is no row to calibrate on. Give at least one.")
    return rows


def questions(batch: Batch) -> Batch:
    """Returns a batch without its answers, so that the model computes no loss."""
    return {name: tensor for name, tensor in batch.items() if name not in _ANSWERS}


def unpadded(batch: Batch, values: Tensor) -> Tensor:
    """Returns the positions of a batch that are no padding: [N, width] of [B, T, width]."""
    mask, flat = batch.get("attention_mask"), values.flatten(0, -2)
    return flat if mask is None or mask.numel() != len(flat) else flat[mask.flatten().bool()]  # images have no mask


@dataclass
class _Call:
    """Holds one call of a layer on one batch: hidden states [B, T, hidden] of both models, and what else it took."""

    batch: Batch
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dense: Tensor
    pruned: Tensor


class _Enough(Exception):  # no error: it ends a call of a layer whose rest nobody needs
    pass


class _Probe:
    """Keeps, of a layer's latest call, what the output matrix read and put out and the hidden states after it."""

    def __init__(self, model: nn.Module, sub: SubLayer, norm: str | None) -> None:
        self.matrix, self.norm = sub.matrix(model), None if norm is None else model.get_submodule(norm)

    @contextmanager
    def listening(self, *, to_the_end: bool) -> Iterator[None]:
        def at_matrix(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self.inputs, self.output = args[0], output

        def at_norm(_: nn.Module, args: tuple[Any, ...]) -> None:
            self.hidden = args[0]
            if not to_the_end:
                raise _Enough

        with ExitStack() as stack:
            stack.callback(self.matrix.register_forward_hook(at_matrix).remove)
            if self.norm is not None:
                stack.callback(self.norm.register_forward_pre_hook(at_norm).remove)
            yield

    def ended(self, output: Tensor) -> None:
        """Takes the output of the layer; where no LayerNorm follows, it is the hidden states after the sub-layer."""
        if self.norm is None:
            self.hidden = output


class Station:
    """Stops at one sub-layer. What is changed of the model here, the following stations see.

    Attributes:
        sub: The sub-layer.
    """

    def __init__(self, sub: SubLayer, layer: nn.Module, probe: _Probe, calls: Sequence[_Call]) -> None:
        self.sub, self.probe, self._layer, self._calls = sub, probe, layer, calls
        self.dense: list[Tensor] = []

    def seen(self) -> Iterator[Seen]:
        """Runs the pruned model up to this sub-layer, and yields what its output matrix sees, call by call."""
        for call, dense in zip(self._calls, self.dense, strict=True):
            try:
                with self.probe.listening(to_the_end=False):
                    self.probe.ended(_run(self._layer, call, call.pruned))
            except _Enough:
                pass
            passing_by = self.probe.hidden - self.probe.output
            yield Seen(unpadded(call.batch, self.probe.inputs), dense - unpadded(call.batch, passing_by))


def stations(model: nn.Module, batches: Sequence[Batch]) -> Iterator[Station]:
    """Stops at each sub-layer that has units, in forward order; the model may be changed at each stop.

    The model computes in evaluation mode without gradients; its modes and the random states come back. Where all layers
    share their tensors (ALBERT), a station sees every layer's call, each from the dense model's hidden states: a
    sub-layer cannot mend the errors that it makes itself further down.

    Args:
        model: A transformers model.
        batches: Tensors by name, on the model's device; ``attention_mask`` marks padding, answers are not looked at.

    Raises:
        InputError: there is no batch, or the model changes the hidden states between its layers.
    """
    subs, paths = sub_layers(model), [layer_path(layer) for layer in anatomy_of(model).layers]
    with preserve_state(model, []), torch.no_grad():
        calls, order = _caught(model, paths, subs, batches)
        for path in paths:
            layer, mine = model.get_submodule(path), [sub for sub in subs if sub.path == path]
            probes = [_Probe(model, sub, _norm_after(sub, order)) for sub in mine]
            stops = [Station(sub, layer, probe, calls[path]) for sub, probe in zip(mine, probes, strict=True)]
            dense = [_dense(layer, call, stops) for call in calls[path]]
            yield from stops
            _hand_on(layer, calls, path, dense)


def _dense(layer: nn.Module, call: _Call, stops: Sequence[Station]) -> Tensor:
    """Runs the layer before it is changed; keeps the hidden states after its sub-layers at their stations."""
    with ExitStack() as stack:
        for stop in stops:
            stack.enter_context(stop.probe.listening(to_the_end=True))
        output = _run(layer, call, call.dense)
    for stop in stops:
        stop.probe.ended(output)
        stop.dense.append(unpadded(call.batch, stop.probe.hidden))
    return output


def _hand_on(layer: nn.Module, calls: dict[str, list[_Call]], path: str, dense: Sequence[Tensor]) -> None:
    """Gives the next layer what this one puts out in both models, and drops what this one was called with."""
    done = calls.pop(path)
    following = next(iter(calls.values()), [])
    for call, after, output in zip(done, following, dense, strict=False):  # no layer follows the last one
        after.dense, after.pruned = output, _run(layer, call, call.pruned)


def _run(layer: nn.Module, call: _Call, hidden: Tensor) -> Tensor:
    return _hidden_states(layer(hidden, *call.args, **call.kwargs))


def _hidden_states(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def _norm_after(sub: SubLayer, order: Sequence[str]) -> str | None:
    """Finds the LayerNorm that is called next after a sub-layer's output matrix, if that is one of its own layer."""
    following = order[order.index(sub.module) + 1 :][:1]
    return next((name for name in following if name in sub.norms), None)


def _caught(
    model: nn.Module, paths: Sequence[str], subs: Sequence[SubLayer], batches: Sequence[Batch]
) -> tuple[dict[str, list[_Call]], list[str]]:
    """Runs the whole model once. Returns the calls of each layer, and matrices and LayerNorms in the order of calls."""
    rows_of(batches)
    calls: dict[str, list[_Call]] = {path: [] for path in paths}
    order: list[str] = []
    for batch in batches:
        hidden: list[Tensor] = []  # what went into the layers, one by one, and out of the latest

        def before(path: str, args: Any, kwargs: Any, batch: Batch = batch, hidden: list[Tensor] = hidden) -> None:
            if hidden and hidden[-1] is not args[0]:
                raise InputError(
                    f"{type(model).__name__} changes the hidden states between two layers, so its layers cannot be run "
                    "one by one. Choose a score and a repair that need no layer-wise calibration."
                )
            # The hidden states of later layers are handed on; only calls of one shared layer keep all of them.
            kept = args[0] if path == paths[0] else _EMPTY
            calls[path].append(_Call(batch, args[1:], kwargs, kept, kept))

        with ExitStack() as stack:
            for path in paths:
                _listen(stack, model.get_submodule(path), path, before, hidden)
            for name in dict.fromkeys(name for sub in subs for name in (sub.module, *sub.norms)):
                hook = model.get_submodule(name).register_forward_pre_hook(lambda _, __, name=name: order.append(name))
                stack.callback(hook.remove)
            model(**questions(batch))
    return calls, order


_EMPTY = torch.empty(0)


def _listen(stack: ExitStack, layer: nn.Module, path: str, before: Any, hidden: list[Tensor]) -> None:
    calls = layer.register_forward_pre_hook(lambda _, args, kwargs: before(path, args, kwargs), with_kwargs=True)
    stack.callback(calls.remove)
    stack.callback(
        layer.register_forward_hook(lambda _, __, out: hidden.__setitem__(slice(None), [_hidden_states(out)])).remove
    )
