"""Students with a teacher, for tests: with the Trainer, and without."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import BertConfig, BertForQuestionAnswering

from tests.conftest import tiny_bert


def teacher_model(**options: Any) -> nn.Module:
    """Other random weights than the student's, and dropout that a teacher must not use."""
    model = tiny_bert(seed=7, hidden_dropout_prob=0.5, **options)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # a teacher that is sure of something
    return model


def teach_by_hand(student: nn.Module, teacher: nn.Module, weight: float, temperature: float) -> None:
    """From now on the student's loss is the blend, written down once more."""
    forward = student.forward
    teacher.eval()

    def taught(**batch: Tensor) -> Any:
        outputs = forward(**batch)
        with torch.no_grad():
            says = teacher(**{key: value for key, value in batch.items() if key != "labels"}).logits
        soft = [torch.softmax(logits / temperature, -1) for logits in (says, outputs.logits)]
        kl = (soft[0] * (soft[0] / soft[1]).log()).sum(-1) * temperature**2
        rows = weight * kl + (1 - weight) * F.cross_entropy(outputs.logits, batch["labels"], reduction="none")
        return SimpleNamespace(loss=rows.mean(), logits=outputs.logits, row_losses=rows)

    student.forward = taught  # type: ignore[method-assign, assignment]


class Counting(nn.Module):
    """A teacher that counts how often it is asked, and about how many rows."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher, self.asked, self.rows = teacher, 0, 0

    def forward(self, **batch: Any) -> Mapping[str, Tensor]:
        assert not self.teacher.training and not torch.is_grad_enabled()
        assert "labels" not in batch
        self.asked += 1
        self.rows += len(batch["input_ids"])
        outputs: Mapping[str, Tensor] = self.teacher(**batch)
        return outputs


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


LABELS = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}


def spans() -> tuple[BertForQuestionAnswering, dict[str, Tensor]]:
    sizes = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForQuestionAnswering(BertConfig(**sizes, intermediate_size=8, max_position_embeddings=16)).double()
    ids = torch.randint(5, 50, (4, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1:3, 5:] = 0
    at = {"start_positions": torch.tensor([1, 2, 0, 3]), "end_positions": torch.tensor([2, 4, 1, 6])}
    return model.eval(), {"input_ids": ids, "attention_mask": mask, **at}
