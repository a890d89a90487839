"""Stores the memory of a flat optimizer and its base optimizer's state in one state dict.

It has torch's own form, so that the Trainer, accelerate and anybody's loop save and load it without knowing of it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from trainflat.core.errors import InputError

# Marks a flat optimizer's tensors among the base optimizer's, by prefix. The step count and the method's name are in
# the first parameter group, because torch keeps unknown keys of a group and drops those beside "state".
_PREFIX, _STEPS, _METHOD = "flat/", "flat_steps", "method"

Memory = dict[Tensor, dict[str, Tensor]]


class Remembered(NamedTuple):
    """Holds a state dict split into the base optimizer's part, memory and step count."""

    base: dict[str, Any]
    memory: Memory
    steps: int


def join(base: Mapping[str, Any], groups: list[dict[str, Any]], memory: Memory, steps: int) -> dict[str, Any]:
    """Adds the memory of ``groups``' parameters to a copy of the base optimizer's state dict."""
    state = {key: dict(entries) for key, entries in base["state"].items()}
    for number, p in _numbered(base, groups):
        if memory.get(p):
            state.setdefault(number, {}).update({_PREFIX + name: value for name, value in memory[p].items()})
    first, *others = base["param_groups"]
    return {**base, "state": state, "param_groups": [first | {_STEPS: steps}, *others]}


def split(joined: Mapping[str, Any], groups: list[dict[str, Any]]) -> Remembered:
    """Splits what :func:`join` returned; a state dict of the base optimizer alone has no memory and no steps."""
    memory: Memory = {}
    for number, p in _numbered(joined, groups):
        for name, value in joined["state"].get(number, {}).items():
            if name.startswith(_PREFIX):
                # Not by the base's load_state_dict, which would cast the memory to the weights' dtype.
                kept = value.detach().to(p.device, copy=True)
                memory.setdefault(p, {})[name.removeprefix(_PREFIX)] = kept
    state = {key: _own(entries) for key, entries in joined["state"].items()}
    own_groups = [{k: v for k, v in group.items() if k != _STEPS} for group in joined["param_groups"]]
    base = {**joined, "state": {key: entries for key, entries in state.items() if entries}, "param_groups": own_groups}
    return Remembered(base, memory, int(joined["param_groups"][0].get(_STEPS, 0)))


def signed(state_dict: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Adds the name of its optimizer to a copy of a state dict."""
    first, *others = state_dict["param_groups"]
    return {**state_dict, "param_groups": [first | {_METHOD: method}, *others]}


def unsigned(state_dict: Mapping[str, Any], *methods: str) -> dict[str, Any]:
    """Removes the optimizer's name from a state dict after checking it; torch's own state dicts have none.

    Args:
        state_dict: As :func:`signed` or torch made it.
        *methods: Names that are accepted; the first one is the optimizer's own.

    Raises:
        InputError: the state dict is of another optimizer.
    """
    first, *others = state_dict["param_groups"]
    method = first.get(_METHOD, methods[0])
    if method not in methods:
        raise InputError(
            f"the state is of {method}, and this optimizer is {methods[0]}. Load it into {method}, or begin anew."
        )
    return {**state_dict, "param_groups": [{k: v for k, v in first.items() if k != _METHOD}, *others]}


def _own(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if not str(name).startswith(_PREFIX)}


def _numbered(state_dict: Mapping[str, Any], groups: list[dict[str, Any]]) -> list[tuple[Any, Tensor]]:
    """Returns each parameter with its number in a state dict."""
    pairs = zip(state_dict["param_groups"], groups, strict=False)  # the base refuses a wrong number of groups
    return [pair for saved, group in pairs for pair in zip(saved["params"], group["params"], strict=False)]
