"""Quantization-aware training (Zafrir, Boudoukh, Izsak and Wasserblat 2019, Q8BERT, arXiv:1910.06188)."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self

import torch
from torch import Tensor, distributed, nn

from trainflat.anatomy.params import unwrapped
from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.settings import Number, Truth, Word
from trainflat.quantization.arithmetic import LARGEST, SMALLEST_STEP, Quantized
from trainflat.quantization.dynamic import layers_to_round
from trainflat.quantization.fake import (
    FakeInt8Embedding,
    FakeInt8Linear,
    Weights,
    fake_quantize,
    integers_of,
    step_of,
    wide,
)
from trainflat.quantization.layout import int8_copy
from trainflat.quantization.modules import Inputs, Int8Linear, Int8Module, int8_module

_FAKES = {nn.Linear: FakeInt8Linear, nn.Embedding: FakeInt8Embedding}


class Q8BERT(Configurable):
    r"""Trains a model while it computes as its int8 copy will, so that it learns to bear the rounding.

    With M = 127, weights W and the inputs x of a linear layer are replaced by (equations 1 to 3 of the paper)::

        q(x) = clamp(round(x / s), -M, M) * s         s_W = max|W| / M,   s_x = EMA(max|x|) / M

    and gradients pass straight through, :math:`\partial q(x) / \partial x = 1`. The weights themselves stay float and
    are what an optimizer, a mask or an average sees; LayerNorm, softmax, GELU and biases stay float too.

    Departs from the paper's code, so that ranges do not depend on how a batch is cut or padded: the range that a step
    rounds with comes from the steps before it (in the first one inputs stay float), it takes in one maximum per step
    however many micro-batches and processes there were, and padding does not count. Queries, keys and values are not
    rounded once more before they are multiplied, because our int8 layers leave attention in float; and biases stay
    float, which inference there rounds to 32 bits.

    Args:
        model: Any module with linear layers; a transformers model or your own.
        weights: One step per matrix (``tensor``, the paper's), or per output channel and word (``channel``), as
            ``quantize_dynamic`` has it.
        activations: ``ema``, the paper's: a fixed step per layer, from a moving average of the largest inputs.
            ``token``: a step per input row, taken as it comes, as ``quantize_dynamic`` has it.
        decay: What the average keeps of itself per step, in [0, 1); the published code's by default.
        embeddings: Whether lookup tables are rounded too.
        head: Whether linear layers outside ``model.base_model`` are.

    Raises:
        InputError: an option is not such a value.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 2))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        >>> quantizer = Q8BERT(model).attach()
        >>> x = torch.randn(32, 8)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     model(x).square().mean().backward()
        ...     optimizer.step()
        ...     quantizer.update()
        >>> small = quantizer.convert()  # of Int8Linear
        >>> torch.allclose(small(x), model.eval()(x), atol=1e-6)
        True
    """

    weights: Annotated[Weights, Word(("tensor", "channel"), "way to round weights")] = "tensor"
    activations: Annotated[Literal["ema", "token"], Word(("ema", "token"), "way to round activations")] = "ema"
    decay: Annotated[float, Number("is a share, in [0, 1)", lambda x: 0 <= x < 1)] = 0.9999
    embeddings: Annotated[bool, Truth()] = True
    head: Annotated[bool, Truth()] = True

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.model: nn.Module = unwrapped(model)
        self._layers: dict[str, nn.Module] = {}
        self._ranges: dict[str, float] = {}
        self._steps: dict[str, Tensor] = {}  # that follow from them, where the weights are
        self._seen: dict[str, Tensor] = {}  # largest inputs since the last update
        self._observing = True
        self._mask: Tensor | None = None
        self._hook: Any = None

    def attach(self) -> Self:
        """Makes the model compute as its int8 copy would; parameters, their names and modules stay the same.

        Raises:
            InputError: there is nothing to round, or a quantizer is attached already.
        """
        if any(isinstance(module, tuple(_FAKES.values())) for module in self.model.modules()):
            raise InputError(f"{type(self.model).__name__} computes with fake quantization already. Detach that first.")
        self._layers = layers_to_round(self.model, embeddings=self.embeddings, head=self.head)
        for name, module in self._layers.items():
            # As torch's parametrizations do: whoever holds the module, and every hook on it, need not know.
            module.__class__ = _FAKES[type(module)]
            module.quantizer, module.place = self, name  # type: ignore[assignment]
        self._hook = self.model.register_forward_pre_hook(self._note_mask, with_kwargs=True)
        return self

    def detach(self) -> None:
        """Makes the model compute with its float weights again; the ranges stay here."""
        for module in self._layers.values():
            module.__class__ = module.__class__.__mro__[1]
            del module.quantizer, module.place
        if self._hook is not None:
            self._hook.remove()
        self._layers, self._hook, self._mask = {}, None, None

    @torch.no_grad()
    def update(self) -> None:
        """Takes what went through the layers into their ranges; to be called after every optimizer step.

        Under ``torch.distributed`` it is called on all processes, which then hold the same ranges.
        """
        names = [name for name, module in self._layers.items() if isinstance(module, FakeInt8Linear)]
        if self.activations != "ema" or not names:
            return
        device = next(self.model.parameters()).device
        none = torch.tensor(-1.0, dtype=torch.float32, device=device)  # of a layer that nothing went through
        largest = torch.stack([self._seen.get(name, none).to(device, torch.float64) for name in names])
        self._seen = {}
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        for name, value in zip(names, largest.tolist(), strict=True):
            if value >= 0 and math.isfinite(value):
                self._take(name, value)

    def _take(self, name: str, largest: float) -> None:
        known = self._ranges.get(name, largest)
        self._ranges[name] = known - (1 - self.decay) * (known - largest)
        self._steps.pop(name, None)

    def _step(self, name: str, device: torch.device) -> Tensor | None:
        """Computes the step of a layer's inputs, float32 as in the int8 layer; None while no range is known."""
        if name in self._ranges and (name not in self._steps or self._steps[name].device != device):
            largest = torch.tensor(self._ranges[name], dtype=torch.float32, device=device)
            self._steps[name] = (largest / LARGEST).clamp(min=SMALLEST_STEP)
        return self._steps.get(name)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Leaves passes inside the block out of the ranges: those at displaced weights, as SAM's second."""
        before, self._observing = self._observing, False
        try:
            yield
        finally:
            self._observing = before

    def inputs(self, name: str, x: Tensor, training: bool) -> Tensor:
        """Rounds the inputs ``x`` [..., in_features] of a linear layer, and notes their range while training."""
        if self.activations == "token":
            return fake_quantize(x, step_of(x, "channel"))
        if training and self._observing:
            self._observe(name, x)
        step = self._step(name, x.device)
        return x if step is None else fake_quantize(x, step)

    @torch.no_grad()
    def _observe(self, name: str, x: Tensor) -> None:
        if not x.numel():
            return
        largest = torch.maximum(x.amax(-1), x.amin(-1).neg())
        mask = self._mask
        if mask is not None and x.dim() == 3 and mask.shape == x.shape[:2]:
            largest = largest.masked_fill(mask.to(x.device) == 0, 0)
        before = self._seen.get(name)
        now = wide(largest.max())
        self._seen[name] = now if before is None else torch.maximum(now, before)

    def _note_mask(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        self._mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def convert(self) -> nn.Module:
        """Makes an int8 copy that computes what the model computes, up to the order of float sums, in evaluation mode.

        It is what ``quantize_dynamic`` makes but for the steps: those of the weights are one per matrix with
        ``weights="tensor"``, those of the inputs are fixed with ``activations="ema"``. Layers whose inputs were never
        seen stay float. It saves and loads as any int8 model.

        Raises:
            InputError: no range is known, or a weight is not finite.
        """
        attached = bool(self._layers)
        self.detach()
        try:
            chosen = layers_to_round(self.model, embeddings=self.embeddings, head=self.head)
            made = {name: self._int8(name, module) for name, module in chosen.items() if self._knows(name, module)}
            if not any(isinstance(module, Int8Linear) for module in made.values()):
                raise InputError("no range of inputs is known yet. Train for a step, call update(), then convert.")
            return int8_copy(self.model, made, self._inputs)
        finally:
            if attached:
                self.attach()

    def _knows(self, name: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Embedding) or self.activations == "token" or name in self._ranges

    @property
    def _inputs(self) -> Inputs:
        """How int8 layers name this way to round inputs."""
        return "static" if self.activations == "ema" else "token"

    def _int8(self, name: str, module: nn.Module) -> Int8Module:
        weight = module.get_parameter("weight")
        step = step_of(weight, self.weights).expand(weight.shape[0], 1)
        rounded = Quantized(integers_of(weight, step).to(torch.int8), step.float())
        made = int8_module(module, rounded, name, self._inputs)
        if isinstance(made, Int8Linear) and made.activations == "static":
            made.input_scale = self._step(name, weight.device)
        return made

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the ranges: the moving average of the largest input of every linear layer, float64, by its name."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self._ranges.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from ranges that another quantizer found.

        Raises:
            InputError: they are not ranges of a model like this.
        """
        linears = {name for name, module in self.model.named_modules() if isinstance(module, nn.Linear)}
        for name, value in state.items():
            if name not in linears or value.numel() != 1 or not (value.isfinite() & (value >= 0)).all():
                raise InputError(f"the ranges are of another model: {name} differs. Resume with the same model.")
        self._ranges = {name: float(value) for name, value in state.items()}
        self._seen, self._steps = {}, {}
