"""Predictions are those of a plain forward pass, and measuring leaves no trace in the model."""

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from trainflat.core.errors import InputError
from trainflat.evaluation import measure_latency, predict, score
from trainflat.records.run import Fingerprint
from trainflat.tasks.base import EncodedSplit, Head, Predictions, Task

LENGTHS = [3, 3, 4, 5, 5, 8, 12]
SIZES: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 16, "pad_token_id": 0}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(48))])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")), pad_token="[PAD]", unk_token="[UNK]"
    )


def split(**answers: Any) -> EncodedSplit:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(2, 50, (n,), generator=generator).tolist() for n in LENGTHS]
    rows = [{"input_ids": i, "attention_mask": [1] * len(i), **answers} for i in ids]
    return EncodedSplit("validation", rows, LENGTHS)


def classifier(labels: int = 3) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=labels)).train()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("labels", [1, 3])
def test_logits_are_those_of_one_row_at_a_time(
    tokenizer: PreTrainedTokenizerFast, labels: int, batch_size: int
) -> None:
    model = classifier(labels)
    found = predict(model, split(labels=0), DataCollatorWithPadding(tokenizer), batch_size)
    model.eval()
    with torch.no_grad():
        wanted = [model(input_ids=torch.tensor([row["input_ids"]])).logits[0].numpy() for row in split().rows]
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_spans_end_where_the_row_ends(tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
    torch.manual_seed(0)
    model = BertForQuestionAnswering(BertConfig(**SIZES))
    found = predict(model, split(start_positions=1, end_positions=2), DataCollatorWithPadding(tokenizer), batch_size)
    assert isinstance(found, tuple)
    assert [f.shape for f in found] == [(7, 12), (7, 12)]
    model.eval()
    for index, row in enumerate(split().rows):
        with torch.no_grad():
            output = model(input_ids=torch.tensor([row["input_ids"]]))
        for logits, plain in zip(found, (output.start_logits, output.end_logits), strict=True):
            np.testing.assert_allclose(logits[index, : LENGTHS[index]], plain[0], atol=1e-6)
            padded_to = max(LENGTHS[index // batch_size * batch_size :][:batch_size])
            assert (logits[index, padded_to:] == -1e9).all()


def test_half_precision_comes_back_as_float32(tokenizer: PreTrainedTokenizerFast) -> None:
    found = predict(classifier().bfloat16(), split(), DataCollatorWithPadding(tokenizer), 4)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32


def test_progress_counts_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    seen: list[tuple[int, int]] = []
    predict(
        classifier(),
        split(),
        DataCollatorWithPadding(tokenizer),
        3,
        progress=lambda done, rows: seen.append((done, rows)),
    )
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_the_model_sees_no_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    model, seen = classifier(), []
    model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(set(kwargs)), with_kwargs=True)
    predict(model, split(labels=0, start_positions=1, end_positions=1), DataCollatorWithPadding(tokenizer), 7)
    assert seen == [{"input_ids", "attention_mask"}]


def test_nothing_to_predict_is_an_input_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match="'validation' has no rows"):
        predict(classifier(), EncodedSplit("validation", [], []), DataCollatorWithPadding(tokenizer), 4)
    with pytest.raises(InputError, match="at least 1, got 0"):
        predict(classifier(), split(), DataCollatorWithPadding(tokenizer), 0)


class Parity(Task):
    """Accuracy of guessing whether a row's number is odd."""

    name, split, metric, head, fingerprints = "parity", "validation", "accuracy", Head("classification", ("0", "1")), {}

    def encode(self, tokenizer: Any, max_length: int) -> Any:
        raise AssertionError

    def score(self, split: EncodedSplit, predictions: Predictions) -> dict[str, float]:
        assert isinstance(predictions, np.ndarray)
        return {"accuracy": 100 * float((predictions.argmax(1) == np.arange(len(split)) % 2).mean())}


def test_the_score_is_the_task_s(tokenizer: PreTrainedTokenizerFast) -> None:
    model, parity = classifier(2), Parity()
    parity.fingerprints = {"validation": Fingerprint(rows=7, sha256="", source="embedded")}
    wanted = parity.score(split(), predict(model, split(), DataCollatorWithPadding(tokenizer), 1))
    assert score(parity, model, split(), tokenizer) == score(parity, model, split(), tokenizer, 2) == wanted


MODELS = {
    "bert": classifier,
    "deberta": lambda: DebertaV2ForSequenceClassification(
        DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"], type_vocab_size=0)
    ),
    "modernbert": lambda: ModernBertForSequenceClassification(ModernBertConfig(**SIZES)),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    built: PreTrainedModel = MODELS[request.param]().train()
    next(m for m in built.modules() if isinstance(m, torch.nn.Dropout)).eval()  # a part that the user froze
    return built


def test_measuring_leaves_no_trace(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Modes, random state and gradients are as before, and training goes on."""
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict(model, split(), DataCollatorWithPadding(tokenizer), 4)
    measure_latency(model, 2, 8, repeats=2)
    assert [m.training for m in model.modules()] == modes
    assert True in modes
    assert False in modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    model(input_ids=torch.ones(2, 8, dtype=torch.long), labels=torch.tensor([0, 1])).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_modes_come_back_after_an_exception(model: PreTrainedModel) -> None:
    modes = [m.training for m in model.modules()]

    def fail(rows: object) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model, split(), fail, 4)
    assert [m.training for m in model.modules()] == modes
    assert not torch.is_inference_mode_enabled()


def test_latency_is_ordered_and_grows_with_work() -> None:
    model = classifier()
    small, large = measure_latency(model, 1, 4, repeats=9), measure_latency(model, 64, 16, repeats=9)
    assert (small.batch, small.length, small.device, small.repeats) == (1, 4, "cpu", 9)
    assert small.threads == torch.get_num_threads()
    assert 0 < small.low <= small.median <= small.high
    assert large.low > small.low


def test_latency_of_what_passes_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is replaced: passes take 100 (warm-up), 1, 2, 3, 4, 5 seconds."""
    ticks = iter(t for i, took in enumerate([100, 1, 2, 3, 4, 5]) for t in (1000 * i, 1000 * i + took))
    monkeypatch.setattr("trainflat.evaluation.latency.perf_counter", lambda: next(ticks))
    seen: list[dict[str, torch.Tensor]] = []
    model = classifier()
    model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs), with_kwargs=True)
    latency = measure_latency(model, 3, 5, repeats=5, warmup=1)
    assert (latency.low, latency.median, latency.high) == (2.0, 3.0, 4.0)
    assert len(seen) == 6
    assert seen[0]["input_ids"].shape == (3, 5)
    assert seen[0]["attention_mask"].all()
    assert seen[0]["input_ids"].unique().numel() > 5


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((0, 4), "batch of at least 1, got 0"),
        ((1, 0), "length of at least 1"),
        ((1, 17), "length 17: .* positions for 16 tokens"),
    ],
)
def test_latency_of_impossible_sizes(sizes: tuple[int, int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        measure_latency(classifier(), *sizes)
