"""The task that needs no data: reproducible, without leaks, neither trivial nor hopeless."""

import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from trainflat.core.errors import InputError
from trainflat.tasks import TASKS, stdlib_docs


@pytest.fixture(scope="module")
def task():
    return TASKS.build("stdlib-docs", data=None, seed=0)


def test_sizes_and_balance(task):
    train, validation = task.training, task.evaluation["validation"]
    assert 2000 <= len(train) + len(validation) <= 4000
    assert 0.15 < len(validation) / (len(train) + len(validation)) < 0.25
    for rows in (train, validation):
        counts = Counter(rows.columns["label"])
        assert set(counts) == set(range(len(task.head.labels)))
        assert max(counts.values()) < 3 * min(counts.values())


def test_no_sentence_occurs_twice(task):
    texts = task.training.columns["text"] + task.evaluation["validation"].columns["text"]
    assert len(set(texts)) == len(texts)
    assert all(4 <= len(text.split()) <= 40 and text.endswith(".") for text in texts)


def test_the_splits_do_not_depend_on_the_seed_or_the_process(task):
    stdlib_docs.read_splits.cache_clear()
    assert TASKS.build("stdlib-docs", data=None, seed=5).fingerprints == task.fingerprints
    assert task.fingerprints["train"].source == "embedded"
    assert not task.fingerprints["train"].partial


def test_nothing_is_imported():
    before = set(sys.modules)
    stdlib_docs.read_splits.cache_clear()
    TASKS.build("stdlib-docs", data=None, seed=0)
    new = set(sys.modules) - before
    assert not new & {"turtle", "tkinter", "telnetlib", "mailbox"}


def test_a_linear_model_learns_it_but_not_all_of_it(task):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    train, validation = task.training.columns, task.evaluation["validation"].columns
    model = LogisticRegression(C=10, max_iter=500).fit(vectorizer.fit_transform(train["text"]), train["label"])
    score = model.score(vectorizer.transform(validation["text"]), validation["label"])
    assert 0.65 < score < 0.95


def test_a_python_without_sources_is_refused(tmp_path):
    with pytest.raises(InputError, match="no sources of the standard library"):
        stdlib_docs.read_splits(tmp_path)


def test_sentences_of_two_parts_are_dropped_and_no_part_outweighs_the_others(tmp_path):
    for k, modules in enumerate(stdlib_docs.PARTS.values()):
        own = [f"Do the thing number {i} of part {k} now." for i in range(600 if k == 0 else 10)]
        docstrings = [*own, own[0], "This one is said by all."]
        (tmp_path / f"{modules[0]}.py").write_text(
            "".join(f"def f():\n    {d!r}\n" for d in docstrings), encoding="utf8"
        )
    splits = stdlib_docs.read_splits(tmp_path)
    texts = [text for rows in splits.values() for text in rows.columns["text"]]
    counts = Counter(label for rows in splits.values() for label in rows.columns["label"])
    assert "This one is said by all." not in texts
    assert counts == {0: stdlib_docs.MOST} | dict.fromkeys(range(1, len(stdlib_docs.PARTS)), 10)


def test_files_that_no_python_reads_are_passed_over(tmp_path):
    (tmp_path / "broken.py").write_bytes(b"def (\xff")
    assert list(stdlib_docs._sentences(tmp_path / "broken.py")) == []


def test_tests_of_the_library_are_not_read():
    library = Path(sysconfig.get_path("stdlib"))
    paths = [p for parts in stdlib_docs.PARTS.values() for p in stdlib_docs._sources(library, parts)]
    assert paths
    assert not any(stdlib_docs.SKIPPED.intersection(p.relative_to(library).parts) for p in paths)


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the first item.\n\nMore.", "Return the first item."),
        ("Send e.g. a\n   long message.", "Send e.g."),
        ("Use os.path.join to join paths.", "Use os.path.join to join paths."),
        ("no capital at the start.", None),
        ("Without a stop at the end", None),
        ("", None),
    ],
)
def test_first_sentence(docstring, sentence):
    expected = sentence if sentence is None or len(sentence.split()) >= 4 else None
    assert stdlib_docs.first_sentence(docstring) == expected
