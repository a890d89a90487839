"""Small models whose classes no rounding can swap, and comparisons of models bit by bit."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification, PreTrainedModel

from tests.support.families import config
from trainflat.pruning import MagnitudePruner


def small(kind: Any = BertForSequenceClassification, family: str = "Bert", **options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64} if family == "Bert" else {}
    model = kind(config(family, **sizes, initializer_range=0.5, **options)).eval()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[0] += 9  # no class is so near to another that rounding decides
    return model


def same_bits(one: Tensor, other: Tensor) -> bool:
    bits = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


def same_model(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(same_bits(first[name], second[name]) for name in first)


def pruned(model: PreTrainedModel, sparsity: float = 0.9) -> PreTrainedModel:
    MagnitudePruner(model, sparsity=sparsity).prune()
    return model.eval()
