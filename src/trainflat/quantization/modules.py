"""Modules that hold int8 weights and their steps as ordinary buffers."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainflat.core.errors import DamagedFile, InputError
from trainflat.quantization.arithmetic import ACTIVATIONS, Quantized, integer_product, quantize_fixed

Activations = Literal["token", "batch", "torch"]
Inputs = Literal["token", "batch", "torch", "static"]


class Int8Module(nn.Module):
    """Holds weights of [rows, columns] as ``weight_int8`` (int8) and ``scale`` (float32, one step per row).

    Both are buffers: they are saved, loaded and moved as any other, and an optimizer does not see them.
    """

    weight_int8: Tensor
    scale: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.register_buffer("weight_int8", torch.zeros(rows, columns, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(rows, dtype=torch.float32))

    @property
    def weight(self) -> Tensor:
        """Dequantizes the weights at each access: [rows, columns] in float32."""
        return self.weight_int8.float() * self.scale[:, None]

    @torch.no_grad()
    def take_(self, weight: Quantized, name: str) -> None:
        """Stores int8 weights [rows, columns] with their steps [rows, 1].

        Raises:
            InputError: a weight was not finite.
        """
        if not bool(weight.step.isfinite().all()):
            raise InputError(f"the weights of {name} contain NaN or infinity. Look at the step that made them.")
        self.weight_int8, self.scale = weight.integers, weight.step.squeeze(-1)

    def check(self, name: str) -> None:
        """Checks tensors that were loaded from a file.

        Raises:
            DamagedFile: a tensor has another type or shape than it was saved with, or a step that cannot be.
        """
        shape = self.expected_shape()
        if self.weight_int8.dtype != torch.int8 or tuple(self.weight_int8.shape) != shape:
            found = f"{self.weight_int8.dtype} {list(self.weight_int8.shape)}"
            raise DamagedFile(f"{name}.weight_int8 is {found}, not int8 {list(shape)}. Save the model again.")
        scale = self.scale
        if scale.dtype != torch.float32 or scale.shape != shape[:1] or not bool((scale.isfinite() & (scale > 0)).all()):
            raise DamagedFile(f"{name}.scale is not {shape[0]} positive float32 numbers. Save the model again.")

    def check_step(self) -> None:
        """Checks that the steps are float32, as ``_apply`` leaves them.

        Raises:
            InputError: they were cast to another type.
        """
        if self.scale.dtype != torch.float32:
            raise InputError(f"the steps of an int8 layer are {self.scale.dtype}. Leave the model in float32.")

    def expected_shape(self) -> tuple[int, int]:
        """Returns rows and columns of the weights."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Int8Module":
        """Keeps the steps in float32 under ``.to(dtype)``: in half precision they would shift the weights."""
        steps = {name: step for name, step in self.named_buffers(recurse=False) if name in ("scale", "input_scale")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, step in steps.items():
            moved = self.get_buffer(name)
            if moved.dtype != torch.float32:
                setattr(self, name, step.to(moved.device))
        return self


class Int8Linear(Int8Module):
    r"""Multiplies integers in a linear layer.

    With :math:`q_x, s_x, z_x` from the input and :math:`q_w, s_w` from the weights::

        y = s_x s_w (q_w (q_x - z_x)) + bias        s_w: one step per output channel

    Inputs are quantized anew at every call: each row of the last dimension for itself (``token``), so that an output
    does not depend on what else is in the batch, or all together (``batch``; ``torch`` in 7 bits); or with one fixed
    step ``input_scale`` that training found (``static``). Gradients do not flow through.

    Args:
        in_features: Size of the last dimension of the input.
        out_features: Of the output.
        bias: Whether a bias is added, in float32.
        activations: ``token``, ``batch``, ``torch`` or ``static``.
    """

    bias: Tensor | None
    input_scale: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, activations: Inputs = "token") -> None:
        super().__init__(out_features, in_features)
        self.in_features, self.out_features, self.activations = in_features, out_features, activations
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)
        self.register_buffer("input_scale", torch.ones(()) if activations == "static" else None)
        self._sums: tuple[Tensor, int, Tensor] | None = None

    def expected_shape(self) -> tuple[int, int]:
        """Returns outputs and inputs."""
        return self.out_features, self.in_features

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., in_features] to [..., out_features], in the type of ``x``; computed in float32."""
        self.check_step()
        shape = (*x.shape[:-1], self.out_features)
        if x.numel() == 0:
            return x.new_zeros(shape)
        rows = x.reshape(-1, self.in_features)
        fixed = self.input_scale
        integers, step, zero = ACTIVATIONS[self.activations](rows) if fixed is None else quantize_fixed(rows, fixed)
        y = integer_product(integers, self.weight_int8).float()
        if zero is not None:
            y.sub_(zero * self._row_sums())
        y.mul_(step)
        y = y.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias.float(), y, self.scale, out=y)
        return y.view(shape).to(x.dtype)

    def check(self, name: str) -> None:
        """Checks also the step of the inputs."""
        super().check(name)
        step = self.input_scale
        if step is not None and (step.dtype != torch.float32 or step.dim() or not 0 < float(step) < torch.inf):
            raise DamagedFile(f"{name}.input_scale is not a positive float32 number. Save the model again.")

    def _row_sums(self) -> Tensor:
        """Sums the integer weights over the inputs, [out_features]; cached until the weights change."""
        weight = self.weight_int8
        changes = None if weight.is_inference() else getattr(weight, "_version", None)
        if changes is None:  # they are not counted
            return weight.sum(-1).float()
        if self._sums is None or self._sums[0] is not weight or self._sums[1] != changes:
            self._sums = weight, changes, weight.sum(-1).float()
        return self._sums[2]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sums": None}

    def extra_repr(self) -> str:
        """Shows sizes, bias and how inputs are quantized."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, activations={self.activations!r}"


class Int8Embedding(Int8Module):
    """Looks up vectors in an int8 table, one step per row; only the rows that are looked up become floats.

    Args:
        num_embeddings: Rows.
        embedding_dim: Length of a vector.
        padding_idx: As of the table that this one replaces; nothing depends on it without training.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        super().__init__(num_embeddings, embedding_dim)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx

    def expected_shape(self) -> tuple[int, int]:
        """Returns words (or positions) and the length of their vectors."""
        return self.num_embeddings, self.embedding_dim

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        """Returns vectors in float32, [..., embedding_dim]."""
        self.check_step()
        return functional.embedding(ids, self.weight_int8).float() * functional.embedding(ids, self.scale[:, None])

    def extra_repr(self) -> str:
        """Shows the sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


def empty_int8(module: nn.Module, activations: Inputs) -> Int8Module:
    """Makes the int8 counterpart of a linear layer or a table, without its weights."""
    if isinstance(module, nn.Linear):
        return Int8Linear(module.in_features, module.out_features, module.bias is not None, activations)
    assert isinstance(module, nn.Embedding)
    return Int8Embedding(module.num_embeddings, module.embedding_dim, module.padding_idx)


def int8_module(module: nn.Module, weight: Quantized, name: str, activations: Inputs) -> Int8Module:
    """Makes the int8 counterpart of a linear layer or a table from its rounded weights; a bias stays float32.

    Raises:
        InputError: a weight was not finite; says so of ``name``.
    """
    made = empty_int8(module, activations)
    made.take_(weight, name)
    if isinstance(module, nn.Linear) and module.bias is not None:
        made.bias = module.bias.detach().float().clone()
    return made
