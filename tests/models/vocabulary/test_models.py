"""Which entries others need, by kind of model: closed cases of each, and the property that all of them share."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.support.vocabularies import TOKENIZERS, made, sentences
from trainflat.models.vocabulary.bpe import BytePairs
from trainflat.models.vocabulary.fast import FastTokenizer


@cache
def fast(family: str) -> FastTokenizer:
    return FastTokenizer(made(family))


def cut(tokenizer: FastTokenizer, ids: set[int], unknown: set[str]) -> tuple[Tokenizer, dict[int, int]]:
    """The tokenizer with these ids and what they need, without padding, and their places."""
    places = tokenizer.numbered(tokenizer.needed(ids, unknown))
    whole = tokenizer.cut_json(places) | {"padding": None, "truncation": None}
    return Tokenizer.from_str(json.dumps(whole)), places


def kept_for(tokenizer: FastTokenizer, corpus: Sequence[str]) -> tuple[Tokenizer, dict[int, int]]:
    unknown = set().union(*map(tokenizer.unknown_words, corpus))
    return cut(tokenizer, {one for ids in tokenizer.encode(corpus) for one in ids}, unknown)


def plain(model: models.Model) -> FastTokenizer:
    inner = Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return FastTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner))


words = st.sampled_from(sorted({word for one in sentences() for word in one.split()}))
texts = st.lists(st.lists(words | st.text(max_size=4), min_size=1, max_size=8).map(" ".join), min_size=1, max_size=8)


@pytest.mark.parametrize("family", TOKENIZERS)
@settings(max_examples=20, deadline=None)
@given(corpus=texts, others=texts)
def test_every_text_of_kept_tokens_is_read_in_the_same_tokens(
    family: str, corpus: list[str], others: list[str]
) -> None:
    whole = fast(family)
    small, places = kept_for(whole, corpus)
    for text, ids in zip(corpus, whole.encode(corpus), strict=True):
        assert small.encode(text).ids == [places[one] for one in ids]
    unknown = whole.ids[str(whole.tokenizer.unk_token)]
    unsure = {unknown} if whole.model.incomplete else set()  # as the vocabularies are that this library trains
    for text, ids in zip(others, whole.encode(others), strict=True):
        if places.keys() - unsure >= set(ids):
            assert small.encode(text).ids == [places[one] for one in ids]


def test_bert_s_own_word_pieces_read_alike_whatever_was_kept(minilm_tokenizer: Any) -> None:
    """Unknown words included: each of its 997 characters has entries of its own."""
    whole = FastTokenizer(minilm_tokenizer)
    assert not whole.model.incomplete

    @settings(max_examples=25, deadline=None)
    @given(corpus=texts, others=texts)
    def check(corpus: list[str], others: list[str]) -> None:
        small, places = kept_for(whole, corpus)
        for text, ids in zip(corpus + others, whole.encode(corpus + others), strict=True):
            if places.keys() >= set(ids):
                assert small.encode(text).ids == [places[one] for one in ids]

    check()


@pytest.mark.parametrize("family", TOKENIZERS)
def test_what_is_kept_is_numbered_without_gaps_and_in_order(family: str) -> None:
    whole = fast(family)
    small, places = kept_for(whole, sentences()[:9])
    names = {number: token for token, number in whole.ids.items()}
    assert sorted(places.values()) == list(range(len(places)))
    assert small.get_vocab(with_added_tokens=True) == {names[old]: new for old, new in places.items()}
    own = [new for old, new in sorted(places.items()) if old in set(whole.model.entries.values())]
    assert own == sorted(own)
    assert len(places) < 0.8 * len(whole.ids)
    added = {one["content"]: one["id"] for one in whole.cut_json(places)["added_tokens"]}
    assert added == {token: small.token_to_id(token) for token in added}


def test_added_tokens_come_after_the_model_s_own_whatever_their_ids_were() -> None:
    """tokenizers numbers them from the count of entries on, so with gaps they may stand in the middle."""
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "x": 5, "y": 6}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(["[SEP]"])
    assert inner.token_to_id("[SEP]") == 3
    whole = FastTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner))
    assert whole.numbered({0, 3, 5, 4}) == {0: 0, 5: 1, 3: 2, 4: 3}  # 4 is a row without a token
    small, _ = kept_for(whole, ["x [SEP] x"])
    assert small.encode("x [SEP] x").ids == [1, 2, 1]
    assert small.get_vocab(with_added_tokens=True) == {"[UNK]": 0, "x": 1, "[SEP]": 2}


def test_the_padding_in_the_file_follows() -> None:
    inner = Tokenizer.from_str(made("ModernBert").backend_tokenizer.to_str())
    inner.enable_padding(pad_id=inner.token_to_id("[PAD]"), pad_token="[PAD]")
    whole = FastTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner))
    places = whole.numbered(whole.needed(set(), set()))
    assert whole.cut_json(places)["padding"]["pad_id"] == places[inner.token_to_id("[PAD]")] < 300


def test_the_unknown_piece_is_found_at_its_new_place() -> None:
    pieces = [("a", -1.0), ("bb", -3.0), ("<unk>", 0.0), ("b", -4.0)]
    small, places = kept_for(plain(models.Unigram(pieces, unk_id=2)), ["b"])
    assert places == {2: 0, 3: 1}
    assert small.encode("ab").ids == [0, 1]


def test_word_pieces_cut_an_unkept_word_into_the_characters_of_the_kept_ones() -> None:
    entries = ["[UNK]", "ab", "abc", "a", "b", "##a", "##b", "##c", "##bc"]
    small, places = cut(plain(models.WordPiece({e: i for i, e in enumerate(entries)}, unk_token="[UNK]")), {1}, set())
    assert small.encode("ab").tokens == ["ab"]
    assert small.encode("ba").tokens == ["b", "##a"]
    assert small.encode("abc").tokens == ["[UNK]"]  # no kept token has a c
    assert len(places) == 6


def test_an_unknown_word_of_the_corpus_stays_unknown() -> None:
    """Without `ab`, `abd` would be read as `a ##bd`: in the whole vocabulary it ends at a `d` that has no entry."""
    entries = {e: i for i, e in enumerate(["[UNK]", "a", "ab", "##bd", "d"])}
    whole = plain(models.WordPiece(entries, unk_token="[UNK]"))
    assert next(whole.encode(["abd"])) == [0]
    small, places = cut(whole, {0, 1, 3}, set())
    assert small.encode("abd").tokens == ["a", "##bd"]
    small, places = kept_for(whole, ["abd", "a"])
    assert small.encode("abd").tokens == ["[UNK]"]
    assert 2 in places


def test_byte_pairs_keep_what_their_merges_pass_through() -> None:
    entries = {e: i for i, e in enumerate(["a", "b", "c", "d", "ab", "cd", "bc", "abcd"])}
    merges = [("a", "b"), ("b", "c"), ("c", "d"), ("ab", "cd")]
    whole = plain(models.BPE(entries, merges))
    small, places = kept_for(whole, ["abcd"])
    assert set(places) == {0, 1, 2, 3, 4, 5, 7}  # not `bc`, which is a merge of its letters but never their first
    assert small.encode("abcd").tokens == ["abcd"]
    assert small.encode("bc").tokens == ["b", "c"]


def test_of_several_ways_to_merge_a_token_only_the_one_that_is_taken_is_kept() -> None:
    """As in vocabularies that were converted from SentencePiece, which list every pair that makes an entry."""
    entries = {e: i for i, e in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    model = BytePairs(
        {"vocab": entries, "merges": [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]}, byte_level=False
    )
    assert model.made_from("abc") == {"a", "b", "c", "bc", "abc"}
    assert model.needed({"abc"}) == {"a", "b", "c", "bc", "abc"}
    assert model.cut({0: 0, 1: 1, 2: 2, 4: 3, 5: 4})["merges"] == [["b", "c"], ["a", "bc"]]


@pytest.mark.parametrize(
    ("options", "token", "passed"),
    [
        ({"end_of_word_suffix": "</w>"}, "ab</w>", {"a", "b</w>", "ab</w>"}),
        ({"continuing_subword_prefix": "##"}, "##ab", {"##a", "##b", "##ab"}),
        ({"continuing_subword_prefix": "##"}, "ab", {"a", "##b", "ab"}),
        ({}, "<s>", set()),
    ],
)
def test_marks_of_a_place_in_a_word_are_part_of_the_characters(
    options: dict[str, str], token: str, passed: set[str]
) -> None:
    merges = [("a", "b</w>"), ("a", "##b"), ("##a", "##b")]
    entries = ["a", "b</w>", "ab</w>", "##a", "##b", "##ab", "ab", "<s>"]
    part = {"vocab": {e: i for i, e in enumerate(entries)}, "merges": merges} | options
    assert BytePairs(part).made_from(token) == passed


@pytest.mark.parametrize("ignore", [True, False])
def test_whole_words_that_are_looked_up_first(ignore: bool) -> None:
    entries = {e: i for i, e in enumerate(["a", "b", "c", "ab", "abc"])}
    whole = plain(models.BPE(entries, [("a", "b")], ignore_merges=ignore))
    small, _ = kept_for(whole, ["abc"])
    assert small.encode("abc").tokens == (["abc"] if ignore else ["ab", "c"])


def test_an_unknown_character_costs_what_it_did() -> None:
    """10 below the lowest score: without `zz` it would cost 30 in place of 50, and `a bc ?` less than `ab cd`."""
    pieces = [("<unk>", 0.0), ("a", -1.0), ("bc", -1.0), ("ab", -20.0), ("cd", -20.0), ("zz", -40.0)]
    whole = plain(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    assert next(whole.encode(["abcd"])) == [3, 4]
    small, places = cut(whole, {1, 2, 3, 4}, set())
    assert small.encode("abcd").tokens == ["ab", "cd"]
    assert 5 in places
    without = Tokenizer.from_str(json.dumps(whole.cut_json({number: number for number in range(5)})))
    assert without.encode("abcd").ids == [1, 2, 0]


@pytest.mark.parametrize("family", ["Roberta", "ModernBert"])
def test_all_bytes_are_kept_so_that_any_text_can_be_read(family: str) -> None:
    small, _ = kept_for(fast(family), ["a"])
    assert "\u6f22" in small.decode(small.encode("\u6f22").ids)


def test_pieces_for_bytes_are_all_kept() -> None:
    pieces = [("<unk>", 0.0), ("a", -1.0), *((f"<0x{byte:02X}>", -5.0) for byte in range(256)), ("bb", -2.0)]
    small, places = kept_for(plain(models.Unigram(pieces, unk_id=0, byte_fallback=True)), ["a"])
    assert len(places) == 258
    assert small.encode("\u6f22").tokens == ["<0xE6>", "<0xBC>", "<0xA2>"]
