"""Finds, loads and checks pre-trained encoders."""

from trainflat.models.base import Encoder, max_positions, model_info, output_names, vocabulary_size, weights_sha256
from trainflat.models.loading import load_config, load_encoder, load_on_meta
from trainflat.models.locate import MODELS
from trainflat.models.meeting import fit_inputs, meet
from trainflat.models.quiet import no_bars
from trainflat.models.safe_load import read_tokenizer

__all__ = [
    "MODELS",
    "Encoder",
    "fit_inputs",
    "load_config",
    "load_encoder",
    "load_on_meta",
    "max_positions",
    "meet",
    "model_info",
    "no_bars",
    "output_names",
    "read_tokenizer",
    "vocabulary_size",
    "weights_sha256",
]
