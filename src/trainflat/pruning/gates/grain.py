"""GRAIN: gradient-based intra-attention pruning (Yang, Cui, Yao and Wang, ACL 2023, arXiv:2212.07634)."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from trainflat.anatomy import anatomy_of, layout_of
from trainflat.anatomy.params import named_weights
from trainflat.core.configurable import Configurable
from trainflat.core.errors import InputError
from trainflat.core.schedules import ScheduleOption
from trainflat.core.settings import Check, Number
from trainflat.pruning.enforcer import MaskEnforcer
from trainflat.pruning.gates.base import Gate
from trainflat.pruning.gates.block_units import entries_of
from trainflat.pruning.gates.unit_gradients import (
    QUERY_KEY,
    UNIT,
    VALUE_OUTPUT,
    UnitGradients,
    group_name,
    places_of,
)
from trainflat.pruning.gates.units import MaskGroup, expanded, structure_units
from trainflat.pruning.masks import Masks
from trainflat.pruning.options import Decay, SparsityOption
from trainflat.pruning.structured.counting import count
from trainflat.pruning.structured.kept import Kept, KeptLayer
from trainflat.pruning.structured.refusals import check

_LAYER = 1e-4  # beta of the published code: 1 but for a layer that is almost empty


class _Term(Check):
    def read(self, name: str, value: Any) -> str | None:
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name} names a term of the loss, such as task; null is the whole loss. Got {value!r}.")
        return value


class Grain(Configurable, Gate):
    r"""Drops dimensions of queries and keys, of the heads' outputs, and feed-forward units, by one term's gradients.

    A unit's importance at a step is that of one matrix, :math:`|\sum W\, \partial L_{term} / \partial W|`: a query-key
    dimension's over its row of the query matrix and its bias, a value-output dimension's over its column of the
    attention's output matrix, a feed-forward unit's over its column of the second matrix. Those of the heads' outputs
    are multiplied by ``tanh(d / alpha)``, with d the share of the head's dimensions that is left, so that heads empty
    rather than thin out. Scores are running means of these products. After each step while the sparsity rises, all
    units of the model are ranked together, and the lowest are dropped until their parameters are the share of all
    units' that the schedule says; then, the query-key dimensions of heads without an output.

    The gradient is that of the loss *before* hidden states are distilled, "separated" in the paper: with ``term:
    task`` that of labels and the teacher's logits, which ``layerwise`` joins as a term of its own. It is taken by a
    backward pass that makes no gradient of weights, about a third of a step, and only until the sparsity is final; a
    loss of a single term needs none. Dropped units are zero in all of their tensors, biases included, and stay so, as
    with :class:`~trainflat.pruning.gates.GradualPruner`; what an optimizer like SAM perturbs is not masked by half.
    ``shrink(model, gate.kept())`` computes the same. A sub-layer that has lost everything adds its output's bias.

    Departs from the published code in that units are dropped after an optimizer's step, there before it; in that
    importances of a batch that is cut into micro-batches, or over processes, are those of the whole batch (there 1 is
    asserted); in that gradients are unscaled under fp16, and steps skipped that overflow; and in that units' parameters
    are what the architecture has. Where positions rotate (ModernBERT) query-key dimensions go with their head alone.
    Under SAM importances are taken where its gradient is, at displaced weights. Word embeddings are left whole.

    Args:
        model: A transformers model of a known architecture.
        target_sparsity: Share of the units' parameters to drop in the end; published: as far as 0.97.
        schedule: When the sparsity rises; published: cubic from 20 % to 40 % of the run.
        term: The term of the loss whose gradients rank units; None is the whole loss.
        alpha: Of the regularisation; published 0.3. The smaller, the less.
        decay: Share of the scores that stays at a step.

    Attributes:
        left: Which units are left, by group: booleans [units].

    Raises:
        InputError: the model's structure is not known, or cannot be shrunk.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from trainflat.pruning.structured import shrink
        >>> sizes = dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32, vocab_size=9)
        >>> model, ids = BertModel(BertConfig(**sizes)).eval(), torch.tensor([[1, 2, 3]])
        >>> gate = Grain(model, target_sparsity=0.6)
        >>> gate.begin(10)
        >>> for step in range(10):  # the optimizer's step goes between the two
        ...     with gate.passes():
        ...         states = model(ids).last_hidden_state
        ...         terms = {"task": states[:, 0].square().mean(), "layerwise": states.abs().mean()}
        ...         gate.differentiate(terms)
        ...         sum(terms.values()).backward()
        ...     gate.observe(lr=1e-3)
        ...     gate.advance(step + 1)
        >>> _ = gate.finish()
        >>> bool(torch.allclose(shrink(model, gate.kept())(ids).pooler_output, model(ids).pooler_output, atol=1e-6))
        True
    """

    learns: ClassVar[bool] = True  # its scores travel as parameters do, though no optimizer moves them
    needs_hooks: ClassVar[bool] = True
    observes = True

    target_sparsity: SparsityOption = 0.95
    schedule: ScheduleOption = {"name": "cubic", "start": 0.2, "hold": 0.6}  # noqa: RUF012 -- an option's default
    term: Annotated[str | None, _Term()] = "task"
    alpha: Annotated[float, Number("is a density, above 0", lambda x: x > 0)] = 0.3
    decay: Decay = 0.998

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        Configurable.__init__(self, *args, **options)
        Gate.__init__(self, model, self.schedule)
        self.anatomy = anatomy_of(self.model)
        tensors = named_weights(self.model, every_name=True)
        kinds = (UNIT, VALUE_OUTPUT) if self.anatomy.rotary else (UNIT, VALUE_OUTPUT, QUERY_KEY)
        units = [unit for kind in kinds for unit in self.anatomy.units(kind)]
        self.units: dict[str, MaskGroup] = structure_units(units, tensors)
        self.weights = {name: tensors[name] for group in self.units.values() for name in group.members}
        self._heads = {group_name(VALUE_OUTPUT, one.number): one.attention.heads for one in self.anatomy.layers}
        self.left: dict[str, Tensor] = {}
        self._gone = 0.0  # parameters of the units that are
        self._standing: ExitStack | None = None

    @classmethod
    def check_model(cls, options: Any, model: nn.Module) -> None:
        super().check_model(options, model)
        anatomy = anatomy_of(model)
        check(model, layout_of(model), anatomy, Kept.all(anatomy))

    @classmethod
    def check_length(cls, options: Any, total_steps: int) -> None:
        super().check_length(options, total_steps)
        if options.schedule.share(0, total_steps) > 0:
            raise InputError(
                "the schedule prunes before the first step, and grain ranks by gradients; there are none yet. Give it "
                "a start of at least 1 step."
            )

    @property
    def scheduled_quantity(self) -> tuple[str, float]:
        return "sparsity", self.target_sparsity

    @property
    def settled(self) -> bool:
        return super().settled and self._reaches(self.target_sparsity)

    def refuse_unfit(self) -> None:
        super().refuse_unfit()
        self.check_model(self, self.model)

    def prepare(self) -> None:
        self.scores, self.left, self._gone = {}, {}, 0.0
        for name, group in self.units.items():
            like = self.weights[next(iter(group.members))]
            dtype = torch.promote_types(like.dtype, torch.float32)
            self.scores[name] = nn.Parameter(torch.zeros(group.shape, dtype=dtype, device=like.device))
            self.left[name] = torch.ones(group.shape, dtype=torch.bool, device=like.device)
        self.gradients = UnitGradients(self.model, places_of(self.anatomy), self.scores)
        self.held = MaskEnforcer(self.weights, self._entries())

    # A step

    def open(self) -> None:
        if self._standing is None and not self.settled:
            self._standing, self.gradients.on = ExitStack(), True
            self._standing.enter_context(self.gradients.standing())

    def close(self, weight: float = 1.0) -> None:
        self.abandon()

    def abandon(self) -> None:
        if self._standing is not None:
            self._standing.close()
        self._standing = None

    def differentiate(self, terms: Mapping[str, Tensor], weight: float = 1.0) -> None:
        if self._standing is None or self.term is None:
            return
        if self.term not in terms:
            raise InputError(
                f"grain ranks by the loss's term {self.term!r}, and the loss has {', '.join(terms)}. Name one of them "
                "in term, or give null for the whole loss."
            )
        if len(terms) > 1:
            for name, grad in self.gradients.of(terms[self.term] * weight).items():
                earlier = self.scores[name].grad
                self.scores[name].grad = grad if earlier is None else earlier + grad

    @torch.no_grad()
    def observe(self, lr: float, weight: float = 1.0) -> None:
        grads = {name: score.grad for name, score in self.scores.items() if score.grad is not None}
        for score in self.scores.values():
            score.grad = None  # so that no optimizer moves it
        if all(grad.isfinite().all() for grad in grads.values()):
            for name, grad in grads.items():
                importance = grad.abs() / weight * self._regularisation(name)
                self.scores[name].lerp_(importance.to(grad.dtype), 1 - self.decay)

    def _regularisation(self, name: str) -> Tensor:
        """Returns what importances of a group are multiplied by, [units]."""
        left = self.left[name].double()
        whole = torch.ones_like(left) if name.startswith(QUERY_KEY) else (left.mean() / _LAYER).tanh().expand_as(left)
        if not name.startswith(VALUE_OUTPUT):
            return whole
        heads = left.view(self._heads[name], -1)
        return whole * (heads.mean(1, keepdim=True) / self.alpha).tanh().expand_as(heads).flatten()

    @torch.no_grad()
    def advance(self, step: int) -> None:
        self.step = step
        wanted = self.schedule.value(step, self.total_steps, 0.0, self.target_sparsity)
        if self._reaches(wanted):
            return
        if any(score.any() for score in self.scores.values()):
            self._drop(wanted)
            self._hold()
        elif super().settled:
            raise InputError(
                "grain ranks by gradients and has seen none but zeros. Call observe(lr) before each step of the "
                "optimizer, and let the loss have a share of its term."
            )

    def _drop(self, wanted: float) -> None:
        """Drops the units with the lowest scores until their parameters are a share of all units'."""
        left = torch.cat([*self.left.values()])
        scores = torch.cat([*self.scores.values()]).masked_fill(~left, -torch.inf)  # what is gone stays so
        order = scores.argsort(stable=True)
        gone = self._sizes.to(order.device)[order].cumsum(0)
        last = int(torch.searchsorted(gone, wanted * gone[-1]))
        left[order[: last + 1]] = False
        parts = torch.split(left, [len(one) for one in self.left.values()])
        self.left = dict(zip(self.left, parts, strict=True))
        for layer in self.anatomy.layers:
            values, keys = (group_name(kind, layer.number) for kind in (VALUE_OUTPUT, QUERY_KEY))
            if keys in self.left:
                heads = self.left[values].view(layer.attention.heads, -1).any(1)
                self.left[keys] = self.left[keys] & heads.repeat_interleave(layer.attention.head_size)

    def _reaches(self, share: float) -> bool:
        return self._gone >= share * float(self._sizes.sum())

    @cached_property
    def _sizes(self) -> Tensor:
        """The parameters of each unit, biases included; 2d + 1 of units and 2d + 2 of query-key dimensions in BERT."""
        return torch.cat([entries_of(group, biases=True) for group in self.units.values()])

    # What is left

    def kept(self) -> Kept:
        """Returns what :func:`~trainflat.pruning.structured.shrink` would keep now."""
        kept = Kept.all(self.anatomy)
        numbers = [layer.number for layer in self.anatomy.layers]
        layers = (self._layer(own, number) for own, number in zip(kept.layers, numbers, strict=True))
        return replace(kept, layers=tuple(layers))

    def _layer(self, own: KeptLayer, number: int | None) -> KeptLayer:
        fields = {"query_key": QUERY_KEY, "value_output": VALUE_OUTPUT, "units": UNIT}
        named = {field: self.left.get(group_name(kind, number)) for field, kind in fields.items()}
        found: dict[str, Any] = {field: left.double().cpu() for field, left in named.items() if left is not None}
        return replace(own, **found)

    def alive(self) -> list[bool]:
        """Returns for each layer whether a head or a feed-forward unit is left."""
        return [bool(one.kept_heads()) or bool(one.units.any()) for one in self.kept().layers]

    def masks(self) -> Masks:
        return Masks({name: mask for name, mask in self._entries().items() if mask.dim() > 1})

    def _entries(self) -> dict[str, Tensor]:
        """Returns which entries of the units' tensors are left, biases too."""
        masks = {name: torch.ones(w.shape, dtype=torch.bool, device=w.device) for name, w in self.weights.items()}
        for key, group in self.units.items():
            for name, spreads in group.members.items():
                for spread in spreads:
                    masks[name] &= expanded(self.left[key], spread, masks[name].shape)
        return masks

    def _hold(self) -> None:
        assert self.held is not None, "prepare() makes it"
        self._gone = float(self._sizes[~torch.cat([*self.left.values()]).cpu()].sum())
        self.held.replace(self._entries())
        self.held.mask_weights()

    @contextmanager
    def applied(self) -> Iterator[None]:
        self.fold()  # zeros already, but in an average of weights that stands in for them
        yield

    def fold(self) -> None:
        assert self.held is not None, "prepare() makes it"
        self.held.mask_weights()

    def score_group(self) -> dict[str, Any]:
        # In the optimizer, so that a loop clears and reduces their gradients; `observe` has taken them when it steps.
        return {"lr": 0.0, "weight_decay": 0.0, "rho": 0.0, "reduce": True}

    def logs(self) -> dict[str, float]:
        """Returns the sparsity of the model as it would be shrunk now, and of its units' parameters."""
        units = self._gone / float(self._sizes.sum())
        return {"sparsity": count(self.kept(), self.anatomy).sparsity, "sparsity_units": units}

    def state_dict(self) -> dict[str, Tensor]:
        return super().state_dict() | {f"left.{name}": left for name, left in self.left.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        super().load_state_dict(state, step)
        self.left = {name: state[f"left.{name}"].to(left.device) for name, left in self.left.items()}
        self._hold()
