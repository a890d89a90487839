"""Lets ``from_pretrained`` load int8 models, and weights in a file of this package's own name.

``trainflat.core.registration`` enters these classes in transformers' tables. The hooks (``quantizers.auto``) are young;
``trainflat.load`` goes through them too.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from trainflat.core.errors import DamagedFile, InputError, one_line
from trainflat.models.quiet import quiet_loading
from trainflat.models.safe_load import build_model, read_config
from trainflat.models.stored import MOVE, check_memory, check_sealed, stored_tensors
from trainflat.quantization import METHOD, Int8Module, Layout, check_loaded, prepare
from trainflat.quantization.layout import OWN_WEIGHTS, save_as_own

_READ = "_is_hf_initialized"  # transformers' mark on tensors
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
        """Puts the file's name into the config; this is the first that a quantizer sees of it."""
        if self.quantization_config.weights == OWN_WEIGHTS:
            config.transformers_weights = OWN_WEIGHTS
        return super().update_attn_implementation(config)

    def preprocess_model(self, model: PreTrainedModel, dtype: Any = None, **options: Any) -> None:
        """Takes the name back: when it is saved, the model is written where its own form says."""
        super().preprocess_model(model, dtype, **options)
        vars(model.config).pop("transformers_weights", None)


class Int8Config(QuantizationConfigMixin):  # type: ignore[misc]
    """``quantization_config`` of a model with int8 layers; see :class:`~trainflat.quantization.Layout`."""

    def __init__(self, **options: Any) -> None:
        layout = Layout.from_config(options)
        self.quant_method, self.weights = METHOD, options.get("weights")
        self.activations, self.linears, self.embeddings = layout.activations, layout.linears, layout.embeddings

    def layout(self) -> Layout:
        """Converts to what ``trainflat.quantization`` reads."""
        return Layout(self.activations, self.linears, self.embeddings)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as it stands in config.json."""
        return self.layout().as_config()


class Int8Quantizer(OwnQuantizer):
    """Puts int8 layers in place before the file is read, and checks them afterwards."""

    def validate_environment(self, *_: Any, **__: Any) -> None:
        """Refuses to quantize while loading."""
        if not self.pre_quantized:
            raise InputError("int8 is made from a loaded model. Load it, then call quantize_dynamic(model).")

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Keeps what is not int8 in float32, whatever was asked for: half-precision steps would shift the weights."""
        return torch.float32

    def get_new_dtype(self, converter: Any, param: Any, dtype: torch.dtype | None) -> torch.dtype | None:
        """Reads integers as they stand: floats in their place shall be refused, not cut to integers."""
        return None if dtype == torch.int8 else super().get_new_dtype(converter, param, dtype)

    def preprocess_model(self, model: PreTrainedModel, dtype: Any = None, **options: Any) -> None:
        """Puts int8 layers in place of those that the files have as int8."""
        super().preprocess_model(model, dtype, **options)
        prepare(model, self.quantization_config.layout(), model.base_model_prefix)

    def postprocess_model(self, model: PreTrainedModel, **options: Any) -> PreTrainedModel:
        """Checks what was loaded."""
        super().postprocess_model(model, **options)
        _check_complete(model)
        check_loaded(model)
        save_as_own(model)
        return model

    def is_serializable(self) -> bool:
        """Tells transformers that the model can be saved as it was loaded."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Tells transformers that gradients do not flow through integers."""
        return False


def _check_complete(model: PreTrainedModel) -> None:
    """Checks that each int8 tensor was read: transformers fills what a file lacks with whatever stood in memory.

    Raises:
        DamagedFile: names the first that was not.
    """
    if not any(hasattr(tensor, _READ) for tensor in model.state_dict(keep_vars=True).values()):
        version = transformers.__version__
        raise InputError(f"transformers {version} does not mark what it reads of int8 folders. Install 5.24.")
    for name, module in model.named_modules():
        for key, tensor in module.named_buffers(recurse=False) if isinstance(module, Int8Module) else ():
            if not getattr(tensor, _READ, False):
                raise DamagedFile(f"the model's file has no fitting {name}.{key}. Save the model again.")


def load_int8(folder: Path) -> PreTrainedModel:
    """Loads a model that ``trainflat.quantization`` made, in evaluation mode; what is not int8 is float32.

    Raises:
        InputError: a file is missing, or the weights are a pickle.
        DamagedFile: a file is not what was written, or its tensors are not those of the model.
    """
    check_sealed(folder)
    stored = stored_tensors(folder)
    config = read_config(folder, len(stored))
    check_memory(folder, sum(one.bytes for one in stored.values()))
    kind = build_model(folder, config, {name: one.shape for name, one in stored.items()}).kind
    try:
        with quiet_loading():
            model, info = kind.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that a misfit comes back as data
            )
    except InputError as error:
        raise DamagedFile(f"{folder}: {error}") from error
    except Exception as error:  # a foreign file may be wrong in any way
        raise DamagedFile(f"{folder} cannot be loaded ({one_line(error)}). {MOVE}") from error
    for state, keys in (
        ("lacks", info["missing_keys"]),
        ("has an unknown", info["unexpected_keys"]),
        ("has another shape of", [key for key, *_ in info["mismatched_keys"]]),
    ):
        if keys:
            raise DamagedFile(f"the model in {folder} {state} {min(keys)}. {MOVE}")
    found: PreTrainedModel = model.eval()
    return found
