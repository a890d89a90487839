"""WordLevel: one entry per word, and one for all others."""

from trainflat.models.vocabulary.base import TokenizerModel


class WordLevel(TokenizerModel):
    """Needs nothing: a word is looked up by itself."""
