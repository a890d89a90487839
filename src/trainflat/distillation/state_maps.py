"""Holds the linear maps from a student's hidden states to a teacher's width, and cuts them for a narrower student."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

Map = Literal["shared", "separate", "none"]


class StateMaps(nn.Module):
    """Maps a student's hidden states to the teacher's width, by linear layers that are the identity at first.

    Where the student is narrower or wider, as many dimensions as both have are passed on.

    Args:
        kind: See :class:`Layerwise`.
        count: Number of teacher layers.
        student: Width of the student's hidden states.
        teacher: Width of the teacher's.
        like: A parameter of the student, for its device and type.
    """

    def __init__(self, kind: Map, count: int, student: int, teacher: int, like: Tensor) -> None:
        super().__init__()
        made = {"none": 0, "shared": 1, "separate": count}[kind]
        # Without torch's own initial values: drawing them would shift every later draw of dropout.
        linears = [nn.Linear(student, teacher, device="meta", dtype=like.dtype) for _ in range(made)]
        self.linears = nn.ModuleList(linears).to_empty(device=like.device)
        for linear in linears:
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, states_BTH: Tensor, place: int) -> Tensor:
        """Maps hidden states for the comparison with the teacher layer at a place among the chosen ones."""
        if not len(self.linears):
            return states_BTH
        mapped: Tensor = self.linears[place if len(self.linears) > 1 else 0](states_BTH)
        return mapped


def cut_maps(maps: Mapping[str, Tensor], hidden: Tensor) -> dict[str, Tensor]:
    """Cuts maps on their input side for a student that was shrunk, so that the mapped states stay what they were.

    Factors are no part of it: shrinking folds them into the states, and the gated states had them too.

    Args:
        maps: Tensors of :class:`StateMaps`, by name.
        hidden: Factors of the student's hidden dimensions [H], 0 for those that are gone (``Kept.hidden``).

    Example:
        >>> import torch
        >>> cut_maps({"weight": torch.eye(3), "bias": torch.zeros(3)}, torch.tensor([1.0, 0.0, 0.5]))["weight"].tolist()
        [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    index = hidden.nonzero().flatten()
    return {name: one[:, index.to(one.device)] if one.dim() > 1 else one for name, one in maps.items()}
