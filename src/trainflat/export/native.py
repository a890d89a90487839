"""Lets ``from_pretrained`` of transformers read sparse folders, through its table of quantizers.

These are recent internals of transformers; ``trainflat.load`` reads the same folders without them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from trainflat.core.errors import DamagedFile
from trainflat.export.packed import PARTS, unpack
from trainflat.export.unpacking import QUANT_METHOD, check_stored
from trainflat.models.int8 import OwnQuantizer
from trainflat.models.safe_load import check_shapes
from trainflat.models.stored import check_sealed, stored_tensors


class SparseConfig(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is not typed
    """Holds what ``config.json`` says of a sparse folder; with ``dequantize``, the loaded model is dense."""

    def __init__(self, dequantize: bool = True, weights: str | None = None, **_: Any) -> None:
        self.quant_method, self.dequantize, self.weights = QUANT_METHOD, True, weights


class SparseQuantizer(OwnQuantizer):
    """Checks the files before anything is read from them, then fills one dense matrix after the other."""

    def get_weight_conversions(self) -> list[WeightConverter]:
        """Converts the parts of a matrix to the matrix."""
        return [WeightConverter(list(PARTS), "weight", [_Unpack(self)])]

    def preprocess_model(
        self, model: PreTrainedModel, dtype: Any = None, checkpoint_files: list[str] | None = None, **options: Any
    ) -> None:
        """Checks the files before any weight is read."""
        super().preprocess_model(model, dtype, **options)
        folder = Path(checkpoint_files[0]).parent if checkpoint_files else None
        if folder is not None:
            check_sealed(folder)
            expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
            check_shapes(folder, expected, check_stored(folder, stored_tensors(folder)))

    def postprocess_model(self, model: PreTrainedModel, **options: Any) -> PreTrainedModel:
        """Removes every trace of how the weights were stored."""
        super().postprocess_model(model, **options)
        # Saved again, the model is a dense one, so its names in files are those of any other. From 5.24 on,
        # transformers forgets by itself how a model was unpacked, before this is called.
        made = getattr(model, "_weight_conversions", None)
        if made is not None:
            model._weight_conversions = [one for one in made if not _unpacks(one)]
        return model

    def is_serializable(self) -> bool:
        """Tells transformers that a loaded model is an ordinary one."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Tells transformers that it can be trained."""
        return True


def _unpacks(conversion: Any) -> bool:
    return any(isinstance(operation, _Unpack) for operation in getattr(conversion, "operations", ()))


class _Unpack(ConversionOps):  # type: ignore[misc]
    """Builds one matrix from its parts."""

    def __init__(self, hf_quantizer: HfQuantizer) -> None:
        self.hf_quantizer = hf_quantizer  # its presence keeps transformers from casting the parts

    @torch.no_grad()
    def convert(
        self,
        input_dict: Mapping[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        *,
        full_layer_name: str,
        model: PreTrainedModel,
        **_: Any,
    ) -> dict[str, Tensor]:
        parts = {part: value[0] if isinstance(value, list) else value for part, value in input_dict.items()}
        parameter = model.get_parameter(full_layer_name)
        matrix = unpack(full_layer_name, parts)
        if matrix.shape != parameter.shape:
            raise DamagedFile(f"{full_layer_name} is {list(parameter.shape)}, the file has {list(matrix.shape)}")
        return {full_layer_name: matrix.to(parameter.dtype)}
