"""Adam (Kingma and Ba, ICLR 2015, arXiv:1412.6980) and AdamW (Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from trainflat.optim.memory import signed, unsigned


def _fuse(group: dict[str, Any]) -> None:
    # One fused kernel reads and writes each weight once; torch's default loop takes 7 to 10 times as long on a CPU.
    # An explicit foreach or differentiable excludes fused in torch, so these stay as asked for.
    undecided = group["fused"] is None and not group["foreach"] and not group["differentiable"]
    if undecided and all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"]):
        group["fused"] = True


class _Signed(torch.optim.Adam):
    """Signs its state dict with its class's name and refuses another's; fused wherever the parameters allow.

    Adam's and AdamW's states have the same keys, so torch would load one into the other without an error, and the run
    would resume with another weight decay.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        _fuse(self.param_groups[-1])

    def state_dict(self) -> dict[str, Any]:
        return signed(super().state_dict(), type(self).__name__)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(unsigned(state_dict, type(self).__name__))


class Adam(_Signed):
    """torch's Adam, fused wherever the parameters allow; weight decay 0.

    Args:
        params: Parameters, parameter groups or named parameters.
        lr: Learning rate.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the root of the second mean.
        weight_decay: L2 penalty, added to the gradient.
        amsgrad: Keep the largest second mean (Reddi et al., ICLR 2018).
        **options: Any other option of ``torch.optim.Adam``.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> Adam([weight], lr=0.1).param_groups[0]["fused"]
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)


class AdamW(_Signed, torch.optim.AdamW):
    """torch's AdamW, fused wherever the parameters allow; weight decay 0.01 as there.

    Args:
        params, lr, betas, eps, amsgrad, **options: As for :class:`Adam`.
        weight_decay: Decoupled decay: each step subtracts learning rate times this share of the weight.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> AdamW([weight]).param_groups[0]["fused"]
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)
