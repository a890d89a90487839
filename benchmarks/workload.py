"""The work that the benchmarks time: MiniLM-L6 or BERT-base as a classifier, on rows of tokens."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from trainflat.models import load_encoder
from trainflat.tasks.base import Head

LR = 2e-5
FIRST_WORD = 1000  # ids below are special tokens and unused ones
VOCABULARY = 30522


def minilm() -> nn.Module:
    """All six layers under a head of two classes, ready to train, dropout on as in training."""
    model: nn.Module = load_encoder("minilm", Head("classification", ("no", "yes"))).model
    return model.train()


def bert_base() -> BertForSequenceClassification:
    """BERT-base's shape with random weights, always the same, in evaluation mode."""
    torch.manual_seed(0)
    model: BertForSequenceClassification = BertForSequenceClassification(BertConfig()).eval()
    return model


def random_rows(batch: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    """Rows of words without padding: ``batch`` x ``length`` tokens. Time does not depend on which words."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(FIRST_WORD, VOCABULARY, (batch, length), generator=generator)
    labels = torch.randint(0, 2, (batch,), generator=generator)
    return {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": labels}


def backward(model: nn.Module, rows: Mapping[str, Tensor]) -> float:
    """Forward and backward pass; gradients are added to what is there. Returns the loss."""
    loss: Tensor = model(**rows).loss
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """torch's fused AdamW, its fastest form."""
    return torch.optim.AdamW(model.parameters(), lr=LR, fused=True)


def dense_step(rows: Mapping[str, Tensor]) -> Callable[[], None]:
    """A step of AdamW on a model of its own."""
    model = minilm()
    optimizer = adamw(model)

    def step() -> None:
        backward(model, rows)
        optimizer.step()
        optimizer.zero_grad()

    return step
