"""The converter of CheckList's suites: what it writes is what trainflat reads, and nothing of a pickle runs."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.support import checklist_pickles as pickles
from tools import convert_checklist as converter
from trainflat.evaluation.checklist import EXPECTATIONS, Case, read_suite


@pytest.fixture
def converted(tmp_path: Path) -> Any:
    """Converts tests as those of a published suite; returns the suite as trainflat reads it, by test."""

    def convert(name: str, tests: dict[str, Any]) -> dict[str, list[Case]]:
        path = pickles.archive(tmp_path / f"{name}_suite.tar.gz", pickles.suite(tests))
        written, _ = converter.convert(path, tmp_path, any_count=True)
        suite = read_suite(str(written))
        assert suite.name == f"checklist-{name}"
        found: dict[str, list[Case]] = {}
        for case in suite.cases:
            found.setdefault(case.test, []).append(case)
        return found

    pickles.RAN.clear()
    yield convert
    assert pickles.RAN == []  # pickle.loads would have run what dill's functions are made by


def test_the_pickles_of_these_tests_would_run_code() -> None:
    content = pickles.suite(pickles.SENTIMENT)
    pickles.RAN.clear()
    with pickles.published():
        pickle.loads(content)
    assert "_create_function" in pickles.RAN
    pickles.RAN.clear()


def test_sentiment(converted: Any) -> None:
    found = converted("sentiment", pickles.SENTIMENT)
    told = {name: [(case.expect, case.examples, case.labels) for case in cases] for name, cases in found.items()}
    assert told == {
        "single positive words": [("label", ["good"], [2]), ("label", ["great"], [2])],
        "Sentiment-laden words in context": [("label", ["It is good."], [2]), ("label", ["It is bad."], [0])],
        "simple negations: not negative": [
            ("not-negative", ["This isn't bad."], None),
            ("not-negative", ["Not awful ¡"], None),
        ],
        "Q & A: no": [("neutral-allowed", ["Is it bad? No"], [1]), ("neutral-allowed", ["Is it good? No"], [0])],
        "typos": [("same", ["a fine film", "a fien film", "a fine flim"], None)],
        "intensifiers": [("more-confident", ["It is good.", "It is very good."], None)],
    }
    assert {cases[0].capability for cases in found.values()} == {"Vocabulary", "Negation", "SRL", "Robustness"}
    assert {cases[0].type for cases in found.values()} == {"MFT", "INV", "DIR"}


def test_questions_and_reading(converted: Any) -> None:
    found = converted("qqp", pickles.QQP)
    assert found["Modifier: adj"][0].examples == [("Is it new?", "Is it very new?")]
    assert found["(q, paraphrase(q))"][0].labels == [1, 1]
    assert found["Keep entitites, fill in with gibberish"][0].labels == [None, 0]
    assert found["Testing implications"][0].expect == "implied"
    assert "of a later version" not in found
    found = converted("squad", pickles.SQUAD)
    assert found["Animal vs Vehicle"][0].labels == ["cow", "van"]
    assert found["Change name everywhere"][0].changes == [None, ("Al", "Bo")]


def test_names_of_expectations_are_those_of_the_package() -> None:
    named = {name for by_test in converter.EXPECTED.values() for name in by_test.values()}
    assert named | set(converter.USUAL.values()) | {"text"} == set(EXPECTATIONS)


class Harm:
    def __reduce__(self) -> Any:
        return os.system, ("touch harm",)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pickle.dumps(Harm()), "names posix.system, which no suite needs"),
        (pickle.dumps([1]), "no suite of tests"),
        (pickle.dumps({"a": 1})[:-3], "cannot be read as a pickle"),
    ],
    ids=["another module", "no suite", "cut off"],
)
def test_what_is_no_suite_is_refused_in_one_line(
    content: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = pickles.archive(tmp_path / "qqp_suite.tar.gz", content)
    assert converter.main([str(path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert why in line
    assert [one.name for one in tmp_path.iterdir()] == ["qqp_suite.tar.gz"]


def test_other_counts_are_said_and_the_other_suites_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"squad": (2, 2, 4, {"NER": 1}), "sentiment": (6, 11, 15, {"Vocabulary": 3, "Negation": 2})}
    monkeypatch.setattr(converter, "PUBLISHED", small)
    made = {"sentiment": pickles.SENTIMENT, "squad": pickles.SQUAD}
    paths = [pickles.archive(tmp_path / f"{n}_suite.tar.gz", pickles.suite(tests)) for n, tests in made.items()]
    assert converter.main([*map(str, paths), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "10 cases, where the published file has 11; 13 examples" in said.err
    assert "1 tests of Negation, where the published file has 2" in said.err
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["squad.jsonl"]


def test_the_counts_are_those_of_the_published_files() -> None:
    """As they were counted in the files; the capabilities of two suites add up to all of their tests."""
    told = {name: counts[:3] for name, counts in converter.PUBLISHED.items()}
    assert told == {
        "sentiment": (38, 86_420, 178_578),
        "qqp": (53, 63_216, 207_301),
        "squad": (24, 13_311, 71_293),
    }
    assert all(sum(by.values()) in (0, tests) for tests, _, _, by in converter.PUBLISHED.values())
