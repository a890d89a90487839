"""How long the rows of a training set are, whatever kind of data set it is."""

from typing import Any

import pytest

from trainflat.training.sampler import lengths_of

ROWS = [{"input_ids": [7] * (3 + i * 5 % 11), "labels": i % 2} for i in range(40)]
LENGTHS = [len(row["input_ids"]) for row in ROWS]


@pytest.fixture
def hub() -> Any:
    return pytest.importorskip("datasets").Dataset.from_list(ROWS)


def test_rows_in_a_list() -> None:
    assert lengths_of(ROWS) == LENGTHS
    assert lengths_of([]) is None
    assert lengths_of([{"pixels": 1}]) is None


def test_a_data_set_of_datasets_is_read_by_its_column(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = type(hub).__getitem__
    monkeypatch.setattr(type(hub), "__getitem__", lambda self, key: asked.append(key) or plain(self, key))
    assert lengths_of(hub) == LENGTHS
    assert asked == [0, slice(None)]


def test_drawn_shuffled_joined_and_formatted_rows(hub: Any) -> None:
    joined = __import__("datasets").concatenate_datasets([hub, hub.select([5, 3])])
    for each in (
        hub.select([9, 2, 2]),
        hub.shuffle(seed=3),
        joined,
        hub.with_format("torch"),
        hub.with_format("numpy"),
    ):
        assert lengths_of(each) == [len(row["input_ids"]) for row in each]


def test_rows_of_one_length(hub: Any) -> None:
    datasets = __import__("datasets")
    features = datasets.Features(input_ids=datasets.Sequence(datasets.Value("int64"), length=3))
    assert lengths_of(datasets.Dataset.from_dict({"input_ids": [[1, 2, 3]] * 5}, features)) == [3] * 5


def test_rows_that_are_made_when_they_are_asked_for_are_asked_for(hub: Any) -> None:
    cut = hub.with_transform(lambda batch: {"input_ids": [ids[:4] for ids in batch["input_ids"]]})
    assert lengths_of(cut) == [min(length, 4) for length in LENGTHS]
