"""What pruning to a budget finds is shrunk exactly, of a dense model and of one that is ragged already."""

from typing import Any

import pytest
import torch

from tests.support.shrunk import answers, dense, ragged
from trainflat.anatomy import anatomy_of
from trainflat.pruning.structured import MultiplyAdds, count, prune_structure, shrink


@pytest.mark.parametrize("make", [dense, ragged])
def test_the_shrunk_model_answers_as_the_repaired_one(make: Any) -> None:
    model, draw = make("Bert"), torch.Generator().manual_seed(0)
    ids = [torch.randint(2, 40, (8, 10), generator=draw) for _ in range(3)]
    batches = [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids]
    pruned = prune_structure(model, batches, MultiplyAdds(0.6))
    small = shrink(pruned.model, pruned.kept)
    torch.testing.assert_close(answers(small), answers(pruned.model), rtol=1e-5, atol=1e-5)
    left = count(pruned.kept, anatomy_of(pruned.model))
    assert left.encoder == sum(p.numel() for p in small.bert.encoder.parameters()) < left.dense_encoder
