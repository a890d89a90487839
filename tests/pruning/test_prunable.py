"""What is pruned: all matrices of the encoder and nothing else, whatever they are made of and wrapped in."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import prune
from transformers import SqueezeBertConfig, SqueezeBertForSequenceClassification
from transformers.pytorch_utils import Conv1D

from tests.conftest import tiny_bert
from trainflat.anatomy.params import prunable, unwrapped
from trainflat.averaging import AVERAGING
from trainflat.core.errors import InputError
from trainflat.evaluation import measure_sizes
from trainflat.export import save_sparse
from trainflat.models.base import weights_sha256
from trainflat.objective import Objective
from trainflat.pruning import MagnitudePruner, Masks
from trainflat.pruning.gates import GATES
from trainflat.quantization import QUANTIZERS, quantize_dynamic
from trainflat.reparametrization import Powerprop
from trainflat.training import FlatArguments, FlatTrainer

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.compile uses it
ROWS = {"input_ids": torch.arange(3, 19).reshape(2, 8), "labels": torch.tensor([0, 1])}


@contextmanager
def one_process() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def part_compiled(model: Any) -> nn.Module:
    model.bert.encoder = torch.compile(model.bert.encoder)
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "compiled": torch.compile,  # type: ignore[dict-item]
    "compiled inside": lambda model: nn.DataParallel(torch.compile(model)),  # type: ignore[arg-type]
    "compiled outside": lambda model: torch.compile(nn.DataParallel(model)),  # type: ignore[return-value]
    "encoder compiled": part_compiled,
}
# Where a model comes in: what comes out must not depend on the wrapper.
PLACES: dict[str, Callable[[nn.Module], Any]] = {
    "pruner": lambda model: dict(MagnitudePruner(model, 0.5).prune().packed),
    "masks": lambda model: Masks.ones(model).parameters(model).keys(),
    "held": lambda model: Masks.ones(model).hold(model).mask_weights(),
    "gate": lambda model: list(GATES.make("magnitude", model, sparsity=0.5).weights),
    "reparametrization": lambda model: list(Powerprop(model).weights),
    "objective": lambda model: [Objective(model, [ROWS]).names, Objective(model, [ROWS]).value()],
    "averaging": lambda model: [(a := AVERAGING.make("ema", model)).collect(), sorted(a.state_dict())],
    "int8": lambda model: sorted(quantize_dynamic(model).state_dict()),
    "quantizer": lambda model: sorted(QUANTIZERS.make("q8bert", model).attach()._layers),
    "sizes": measure_sizes,
    "sha256": weights_sha256,
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all((one[name] == other[name]).all() for name in one)
    return bool(one == other)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_changes_nothing(wrapper: str) -> None:
    with one_process():
        for name, place in PLACES.items():
            if (wrapper, name) in {("encoder compiled", p) for p in ("objective", "averaging", "int8", "quantizer")}:
                continue  # these name modules or state, of which a part is another module now
            if (wrapper, name) == ("encoder compiled", "sha256"):
                continue
            plain, wrapped = tiny_bert(), WRAPPERS[wrapper](tiny_bert())
            assert same(place(plain), place(wrapped)), name
            assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), wrapped.parameters(), strict=True)), name


def test_the_trainer_takes_a_wrapper_off(tmp_path: Path) -> None:
    model = tiny_bert()
    masks = MagnitudePruner(model, 0.5).prune()
    arguments = FlatArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True, save_strategy="no")
    rows = [{"input_ids": [3, 4], "labels": 0}] * 8
    trainer = FlatTrainer(nn.DataParallel(model), arguments, train_dataset=rows, masks=masks, optimizer="sam")
    trainer.train()
    assert trainer.model is model
    masks.check(nn.DataParallel(model))


def test_a_wrapped_model_is_written_as_the_plain_one(tmp_path: Path) -> None:
    model = tiny_bert()
    save_sparse(model, tmp_path / "plain")
    save_sparse(nn.DataParallel(model), tmp_path / "wrapped")
    plain, wrapped = (tmp_path / name / "trainflat.safetensors" for name in ("plain", "wrapped"))
    assert plain.read_bytes() == wrapped.read_bytes()


@pytest.mark.parametrize(("module", "name"), [("peft.peft_model", "PeftModel"), ("torch", "FullyShardedDataParallel")])
def test_a_wrapper_with_weights_of_its_own_is_refused(module: str, name: str) -> None:
    kind = type(name, (nn.Module,), {"__module__": module})
    with pytest.raises(InputError, match=name):
        MagnitudePruner(kind(), 0.5)


class Mixer(nn.Module):
    """An encoder with matrices of every make, and what is none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"word": nn.Embedding(9, 4), "project": nn.Linear(4, 8)})
        self.conv, self.pointwise, self.gpt2 = nn.Conv1d(8, 8, 3), nn.Conv2d(8, 4, 1), Conv1D(4, 8)
        self.attention, self.lstm = nn.MultiheadAttention(8, 2), nn.LSTM(8, 2)
        self.raw, self.shared, self.norm = nn.Parameter(torch.randn(3, 4, 5)), nn.Linear(8, 8), nn.LayerNorm((2, 4))
        self.again = self.shared
        self.position_bias, self.cls_token = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(1, 1, 8))
        self.head = nn.Linear(4, 9)
        self.head.weight = self.embeddings["word"].weight  # type: ignore[union-attr, assignment]


def test_matrices_of_every_make_are_pruned() -> None:
    model = Mixer()
    found = ["raw", "conv.weight", "pointwise.weight", "gpt2.weight", "attention.in_proj_weight"]
    found += ["attention.out_proj.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "shared.weight"]
    assert sorted(prunable(model)) == sorted(found)
    masks = MagnitudePruner(model, 0.5).prune()
    masks.check(model)
    assert all(bool((p == 0).any()) for p in masks.parameters(model).values())


def test_the_sparsity_of_an_encoder_of_convolutions_counts_them() -> None:
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SqueezeBertConfig(**sizes, intermediate_size=64, embedding_size=32)
    model = SqueezeBertForSequenceClassification(config)
    MagnitudePruner(model, sparsity=0.5).prune()
    body = [p for name, p in model.transformer.named_parameters() if p.dim() > 1 and "embeddings" not in name]
    zeros = sum(int((p == 0).sum()) for p in body)
    assert measure_sizes(model).encoder_sparsity == zeros / sum(p.numel() for p in body) == 0.5
    with pytest.raises(InputError, match=r"15% of its matrices in linear layers"):
        quantize_dynamic(model)


COMPUTED: dict[str, Callable[[nn.Module], Any]] = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "torch's pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.parametrize("how", COMPUTED)
def test_a_weight_that_is_computed_is_refused(how: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    COMPUTED[how](model[1])
    with pytest.raises(InputError, match="1 computes its weight from other parameters"):
        MagnitudePruner(model, 0.5)


def test_a_plain_model_is_itself() -> None:
    model: Tensor | nn.Module = copy.deepcopy(tiny_bert())
    assert unwrapped(model) is model
