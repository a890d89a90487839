"""Hidden states between layers: for every family those that the model itself returns, and of shrunk models too."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.shrunk import IDS, ragged
from tests.support.structured import NAMES, questions, random_model, rows
from trainflat.anatomy import anatomy_of
from trainflat.anatomy.hidden_states import alive_layers, depth_of, recorded_states
from trainflat.core.errors import InputError
from trainflat.pruning.structured import Kept, shrink


@pytest.mark.parametrize("family", NAMES)
def test_they_are_what_the_model_returns(family: str) -> None:
    model, batch = random_model(family), questions(rows(family))
    with torch.no_grad():
        told = model(**batch, output_hidden_states=True)
        plain = model(**batch)
        with recorded_states(model) as states:
            heard = model(**batch)
        assert torch.equal(plain.logits, heard.logits)
        model(**batch)  # not heard any more
    assert depth_of(model) == len(states) - 1 == 3
    # ModernBERT returns its last hidden states after the final LayerNorm, which is no layer's.
    compared = range(3 if family == "ModernBert" else 4)
    assert all(torch.equal(states[n], told.hidden_states[n]) for n in compared)


@pytest.mark.parametrize("reentrant", [False, True])
def test_each_pass_begins_anew_and_a_backward_pass_adds_nothing(reentrant: bool) -> None:
    model, batch = random_model("Bert").train(), rows("Bert")
    older = model.gradient_checkpointing_enable
    enable = getattr(model, "activation_checkpointing_enable", older)
    enable({"use_reentrant": reentrant})
    with recorded_states(model) as states:
        for _ in range(2):
            model(**batch).loss.backward()
            assert len(states) == 4 and all(state.requires_grad for state in states)


def test_of_shrunk_models() -> None:
    """Of a narrower one each layer, also where sub-layers are skipped; which of them compute anything."""
    model: Any = ragged()
    with torch.no_grad(), recorded_states(model) as states:
        told = model(input_ids=torch.tensor(IDS), output_hidden_states=True).hidden_states
    assert {state.shape[-1] for state in states} == {7} == {anatomy_of(model).hidden_size}
    assert all(torch.equal(one, other) for one, other in zip(states, told, strict=True))
    assert alive_layers(model) == [True, False, True]

    dense = random_model("Bert")
    whole = [one for one in anatomy_of(dense).units("layer") if one.layer == 1]
    fewer = shrink(dense, Kept.all(anatomy_of(dense)).without(whole))
    assert (depth_of(fewer), alive_layers(fewer)) == (2, [True, True])
    assert (depth_of(random_model("Albert")), alive_layers(random_model("Albert"))) == (3, [True] * 3)


def test_an_unknown_architecture() -> None:
    with pytest.raises(InputError, match="the structure of 'Linear' is not known"), recorded_states(nn.Linear(2, 2)):
        pass
