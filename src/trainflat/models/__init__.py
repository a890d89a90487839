"""Who learns: pre-trained encoders."""

from trainflat.models.base import Encoder, max_positions, model_info, output_names, weights_sha256
from trainflat.models.builtin import MODELS
from trainflat.models.loading import load_encoder, outline
from trainflat.models.quiet import no_bars

__all__ = [
    "MODELS",
    "Encoder",
    "load_encoder",
    "max_positions",
    "model_info",
    "no_bars",
    "outline",
    "output_names",
    "weights_sha256",
]
