"""Label noise: which labels change, how often, and that nothing else does."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD

from tests.conftest import tiny_bert
from tests.support.optimizers import bits, problem
from tests.support.plain_loop import collate, random_split
from tests.support.training import ADAMW, NO_DROPOUT, arguments, assert_same_weights, trained
from trainflat.core.errors import InputError
from trainflat.optim import OPTIMIZERS, LabelNoise
from trainflat.training import FlatTrainer


def noise(**options):
    return LabelNoise([nn.Parameter(torch.ones(2))], SGD, lr=0.1, **options)


@pytest.mark.parametrize("classes", [2, 5])
def test_labels_change_to_each_other_class_alike(classes):
    torch.manual_seed(0)
    rows, p = 40_000, 0.3
    labels = torch.arange(rows) % classes
    after = noise(probability=p).prepare_labels(labels, classes)
    assert after.dtype == labels.dtype
    per_class = rows / classes
    for before in range(classes):
        counts = torch.bincount(after[labels == before], minlength=classes)
        for other in range(classes):
            share = 1 - p if other == before else p / (classes - 1)
            assert abs(counts[other] - share * per_class) < 4.5 * math.sqrt(per_class * share * (1 - share))


def test_each_step_draws_anew_from_the_global_generator():
    optimizer, labels = noise(probability=0.5), torch.zeros(64, dtype=torch.long)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = (optimizer.prepare_labels(labels, 3) for _ in range(2))
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(optimizer.prepare_labels(labels, 3), first)
    assert not labels.any()  # those of the data set stay


def test_numbers_get_gaussian_noise():
    torch.manual_seed(0)
    labels = torch.linspace(0, 5, 20_000)
    moved = noise(sigma=0.3).prepare_labels(labels, 1) - labels
    assert moved.std().item() == pytest.approx(0.3, rel=4 / math.sqrt(40_000))
    assert abs(moved.mean().item()) < 4 * 0.3 / math.sqrt(20_000)


def test_ignored_positions_stay_and_truth_values_are_refused():
    labels = torch.tensor([[-100, 1], [0, -100]])
    assert noise(probability=1.0).prepare_labels(labels, 2).tolist() == [[-100, 0], [1, -100]]
    with pytest.raises(InputError, match="changes one class label per row or numbers, not 3 truth values per row"):
        noise().prepare_labels(torch.ones(2, 3), 3)


def test_without_noise_nothing_is_drawn():
    before = torch.get_rng_state()
    labels = torch.tensor([0, 1])
    assert noise(probability=0).prepare_labels(labels, 2) is labels
    assert noise(sigma=0).prepare_labels(labels, 1) is labels
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_is_the_bases():
    (one, first), (two, second) = problem(), problem()
    flat, base = LabelNoise(one.parameters(), SGD, 0.5, lr=0.1), SGD(two.parameters(), lr=0.1)
    for _ in range(4):
        flat.step(first)
        second()
        base.step()
    assert bits(one) == bits(two)


def test_the_trainer_learns_changed_labels_and_evaluates_true_ones(tmp_path: Path, monkeypatch):
    """With probability 1 and two classes it is plain training on swapped labels, bit for bit."""
    calls = []
    prepare = LabelNoise.prepare_labels
    monkeypatch.setattr(LabelNoise, "prepare_labels", lambda *args: calls.append(1) or prepare(*args))
    noisy = trained(tmp_path, {**ADAMW, "name": "label-noise", "probability": 1.0}, num_train_epochs=1)
    assert len(calls) == noisy.passes.count == 6
    noisy.evaluate(random_split(8))
    assert len(calls) == 6

    split = random_split()
    for row in split.rows:
        row["labels"] = 1 - row["labels"]
    plain = FlatTrainer(
        tiny_bert(**NO_DROPOUT).double(),
        arguments(tmp_path, num_train_epochs=1),
        train_dataset=split,
        data_collator=collate,
        optimizer=ADAMW,
    )
    plain.train()
    assert_same_weights(noisy.model, plain.model, atol=0)


def test_the_trainer_changes_numbers_too(tmp_path: Path):
    losses = []
    for sigma in (0.0, 3.0):
        trainer = FlatTrainer(
            tiny_bert(**NO_DROPOUT, num_labels=1),
            arguments(tmp_path, num_train_epochs=1),
            train_dataset=random_split(kind="regression"),
            data_collator=collate,
            optimizer={"name": "label-noise", "sigma": sigma, "lr": 1e-5},
        )
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[1] > 3 * losses[0]  # 9 is added to an error below 1


def test_spans_are_refused(tmp_path: Path):
    def spans(rows):
        batch = collate(rows)
        return batch | {"start_positions": batch["labels"], "end_positions": batch.pop("labels")}

    trainer = FlatTrainer(
        tiny_bert(),
        arguments(tmp_path),
        train_dataset=random_split(8),
        data_collator=spans,
        optimizer={"name": "label-noise", "lr": 1e-3},
    )
    with pytest.raises(InputError, match=r"LabelNoise changes labels, and the batches have none but .*start_positions"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"probability": 1.5}, "probability is the share of labels to change, from 0 to 1, got 1.5"),
        ({"probability": "often"}, "got 'often'"),
        ({"sigma": -1}, "sigma is the standard deviation of the labels' noise, >= 0, got -1"),
    ],
    ids=str,
)
def test_values_that_do_not_fit(options, text):
    with pytest.raises(InputError) as caught:
        OPTIMIZERS.read({"name": "label-noise", **options})
    assert text in str(caught.value)
