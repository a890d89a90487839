"""Lets ``from_pretrained`` of transformers find weights that lie under this package's own name."""

from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers import HfQuantizer

from trainflat.core.errors import InputError
from trainflat.quantization.layout import OWN_WEIGHTS

OWN_FORMS = ("trainflat-int8", "trainflat-sparse")  # quant_method of what this package writes
_CALLED = ("preprocess_model", "postprocess_model")  # in which our quantizers put tensors where they belong


class OwnQuantizer(HfQuantizer):  # type: ignore[misc]  # transformers is not typed
    """Names the file before transformers looks for one; folders of before 0.1 have it as ``model.safetensors``.

    Where transformers stops calling this, it finds no weights and says so.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        gone = [name for name in _CALLED if not hasattr(HfQuantizer, name)]
        if gone:
            raise InputError(
                f"transformers {transformers.__version__} does not call {gone[0]} of a quantizer. Use trainflat.load."
            )

    def update_attn_implementation(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """The first that a quantizer sees of a model's config."""
        if self.quantization_config.weights == OWN_WEIGHTS:
            config.transformers_weights = OWN_WEIGHTS
        return super().update_attn_implementation(config)

    def preprocess_model(self, model: PreTrainedModel, dtype: Any = None, **options: Any) -> None:
        """Takes the name back: when it is saved, the model is written where its own form says."""
        super().preprocess_model(model, dtype, **options)
        vars(model.config).pop("transformers_weights", None)
