"""Trims vocabularies: drops tokens that no text needs, from a tokenizer and its model together."""

from trainflat.models.vocabulary.choices import VOCABULARIES
from trainflat.models.vocabulary.fast import TOKENIZER_MODELS
from trainflat.models.vocabulary.report import TrimReport
from trainflat.models.vocabulary.trim import Trimmed, trim_vocabulary

__all__ = ["TOKENIZER_MODELS", "VOCABULARIES", "TrimReport", "Trimmed", "trim_vocabulary"]
