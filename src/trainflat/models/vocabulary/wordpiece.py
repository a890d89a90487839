"""WordPiece (Schuster and Nakajima, ICASSP 2012; BERT's): takes the longest entry that a word begins with, and on."""

from functools import cached_property

from trainflat.models.vocabulary.base import TokenizerModel


class WordPiece(TokenizerModel):
    """Needs nothing for the words that it can read.

    Proof: at each place the longest entry that fits was kept, so of the kept entries it is the longest that fits.

    A word is unknown as a whole where no entry fits at some place. Without an entry that it went through before,
    another cut might get past that place, unless every character has an entry of its own at the start and inside of
    words: then only a character that has none makes a word unknown, and still does. BERT's vocabularies are of this
    kind; of others the pieces before that place are kept, for the unknown words of the corpus.
    """

    def before_unknown(self, word: str) -> set[str]:
        if len(word) > self.part["max_input_chars_per_word"]:
            return set()
        pieces: set[str] = set()
        start = 0
        while start < len(word):
            lead = self.prefix if start else ""
            fits = (stop for stop in range(len(word), start, -1) if lead + word[start:stop] in self.entries)
            stop = next(fits, None)
            if stop is None:
                return pieces
            pieces.add(lead + word[start:stop])
            start = stop
        return set()

    @cached_property
    def incomplete(self) -> bool:  # type: ignore[override]  # of a class attribute
        """Whether some character has no entry of its own."""
        tokens = self.entries.keys() - self.added
        letters = {character for token in tokens for character in self.core(token)}
        return not all(lead + one in self.entries for one in letters for lead in ("", self.prefix))
