"""How messages read: counts with their nouns, plain words for wrong values, no word twice, whole sentences."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.support.recipes import REFUSED, SOUND
from trainflat.averaging import AVERAGING
from trainflat.core.errors import InputError, UnknownName, one_line
from trainflat.core.formatting import wanted
from trainflat.core.registry import Registry
from trainflat.export import EXPORTERS
from trainflat.protocols import PROTOCOLS
from trainflat.pruning import PRUNERS
from trainflat.recipe import Recipe, load_recipe
from trainflat.sharpness import MEASURES
from trainflat.tasks import TASKS
from trainflat.training import TrainingOptions

SOURCES = sorted((Path(__file__).resolve().parents[2] / "src" / "trainflat").rglob("*.py"))
FAMILIES: tuple[Registry[Any], ...] = (AVERAGING, EXPORTERS, MEASURES, PROTOCOLS, PRUNERS, TASKS)
NOUNS = (
    "epochs|layers|rows|steps|classes|passes|models|stages|records|threads|texts|rounds|seeds|runs|columns|matrices|"
)
NOUNS += "cores|files|samples|batches|processes|entries|trainings|tokens|weights|parameters"
COUNTED = re.compile(rf"^ (?!(?:has|holds|names|changes|chooses|of|whose) )(?:[a-z]+ )??({NOUNS})\b")
SAID_OF_SEVERAL = {  # sentences that are said of several alone, parts of a whole, and names before a noun
    *("self.rows rows", "found.sampled_rows rows", "one.flatness_rows rows", "rows rows", "len(found) texts"),
    *("len(values) rows", "len(table) rows", "len(groups) different texts", "zeros pruned weights", "len(names) files"),
    *("classes classes", "purpose rows", "len(names) or 'no' classes", "split rows", "name rows", "shape tokens"),
    *("self.tokens_before tokens", "self.texts texts", "self.lost dropped tokens"),
    "times(ratio) passes",
    "' x '.join(map(str, rows['input_ids'].shape)) tokens",
}


def counts(path: Path) -> Iterator[str]:
    """A value and the noun in the plural right after it, as messages put them together."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for value, text in pairwise(parts):
            if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                found = COUNTED.match(str(text.value))
                if found:
                    yield f"{ast.unparse(value.value)}{found[0]}"


def test_counts_and_nouns_agree() -> None:
    found = {one for path in SOURCES for one in counts(path)}
    assert found - SAID_OF_SEVERAL == set(), "write {plural(count, 'noun')}"


ODD: list[Any] = [None, True, 3, -3, 1.5, "odd", "", [], [None], ["odd"], [-1], {}, {"odd": 1}, 10**30, float("nan")]
INTERNAL = re.compile(r"Input should|instance|unable to|parse|valid|Sequence|Mapping|NoneType|dict|pydantic|\bNone\b")


def options() -> Iterator[tuple[str, Any]]:
    for registry in FAMILIES:
        for name in registry:
            for key, parameter in registry.options(name).items():
                yield f"{registry.kind} {name}: {key}", parameter.annotation
    for section in (Recipe, TrainingOptions):
        for key, field in section.model_fields.items():
            if "optimizer" not in key:
                yield f"{section.__name__}: {key}", field.rebuild_annotation()


def test_what_an_option_should_have_been_is_said_in_plain_words() -> None:
    for where, annotation in options():
        for value in ODD:
            try:
                TypeAdapter(annotation).validate_python(value)
            except ValidationError as error:
                said = wanted(error.errors()).partition(", got ")[0]
                assert not INTERNAL.search(said), f"{where}, {value!r}: {said}"


TWICE = re.compile(r"\b([a-z_]+):? \1\b")


@pytest.mark.parametrize("case", REFUSED)
def test_no_word_is_said_twice(case: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(SOUND, REFUSED[case][0])
    assert not TWICE.search(str(error.value)) and not INTERNAL.search(str(error.value).partition(", got ")[0])


@pytest.mark.parametrize("section", ["sparsities=[2]", "sparsities=[0.5, 0.5]", "rewind=-1", "scope=3"])
def test_a_protocol_is_named_once(section: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(SOUND, ["protocol=iterative", f"protocol.{section}"])
    assert str(error.value).count("protocol") == 1


@pytest.mark.parametrize("count", [3, 12, 13, 56, 500])
@pytest.mark.parametrize("name", ["name-1", "nmae-11", "xyz"])
def test_an_unknown_name_shows_a_few_near_ones(count: int, name: str) -> None:
    known = [f"name-{n:03}" for n in range(count)]
    said = str(UnknownName("thing", name, known, more="`trainflat list` shows all"))
    shown = said.count("name-0") + said.count("name-1") + said.count("name-2")
    assert len(said) < 350 and "\n" not in said
    assert ("`trainflat list` shows all" in said) == (count > 12)
    if count > 12:
        named = set(re.findall(r"name-\d{3}", said))
        left = re.search(r"and (\d+) more", said)
        assert left and int(left[1]) + len(named) == count and shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("It is gone.", "It is gone"),
        ("It is gone.\nLook: elsewhere.", "It is gone. Look: elsewhere"),
        (f"It is gone. {'Read on ' * 40}.", "It is gone"),
        (f"Version 1.2.3 is gone! {'Read on ' * 40}.", "Version 1.2.3 is gone"),
        ("word " * 100, "word " * 28 + "word ..."),
        ("", "ValueError"),
    ],
)
def test_a_foreign_message_ends_with_a_sentence(text: str, told: str) -> None:
    assert one_line(ValueError(text)).startswith(told[:140])
    assert len(one_line(ValueError(text))) <= 150
