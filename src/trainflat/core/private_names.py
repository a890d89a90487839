"""Lists the private names of other libraries that this package uses, and what it does without them.

``tests/core/test_private_names.py`` looks for each in the installed version and compares its parameters, finds uses
that are not in the table, and takes names away.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateName:
    """Describes one private name of another library.

    Attributes:
        name: Dotted, from the module or class that has it.
        used: Files below ``src/trainflat``.
        seen: Versions that had it.
        without: What happens here where it is gone.
        parameters: As this package passes or overrides them, in order; None for names that are no Python functions.
    """

    name: str
    used: tuple[str, ...]
    seen: str
    without: str
    parameters: tuple[str, ...] | None = None


_TORCH = "torch 2.13"
_TRANSFORMERS = "transformers 5.23, 5.24"
_NOT_FOUND = "from_pretrained finds no weights in our own folders and says so; trainflat.load reads them"
_ANOTHER_TRAINING = "FlatTrainer is refused in one line: a training would silently be another one"
_FOREACH = ("add", "add_", "copy_", "div_", "lerp_", "mul", "mul_", "norm", "sub", "sub_", "zero_")
_STATE_DICT_HOOKS = [
    f"_optimizer_{what}_{when}_hooks" for what in ("state_dict", "load_state_dict") for when in ("pre", "post")
]
_SEALED = "training/trainer.py training/sealed.py"


def _lost(without: str, names: dict[str, str], seen: str = _TRANSFORMERS) -> list[PrivateName]:
    """Lists names without which the same happens; ``names[name]`` is where it is used and, in brackets, how called."""
    split = ((name, *text.rstrip(")").partition(" (")) for name, text in names.items())
    return [
        PrivateName(name, tuple(used.split()), seen, without, tuple(called.split(", ")) if bracket else None)
        for name, used, bracket, called in split
    ]


PRIVATE_NAMES: tuple[PrivateName, ...] = (
    *_lost(
        "one tensor after the other, to the same bits",
        {f"torch._foreach_{one}": "core/foreach.py" for one in _FOREACH},
        _TORCH,
    ),
    *_lost(
        "torch.compiler.disable, which makes importing this package slower",
        {"torch._disable_dynamo": "optim/wrapper.py (fn, recursive)"},
        _TORCH,
    ),
    *_lost(
        "integers are multiplied as floats, to the same values but for sums beyond 2^24",
        {"torch._int_mm": "quantization/arithmetic.py"},
        _TORCH,
    ),
    *_lost(
        "row sums of int8 weights are taken at each call; gradients that were set to 0 count as computed ones",
        {"torch.Tensor._version": "quantization/modules.py optim/wrapper.py"},
        _TORCH,
    ),
    *_lost(
        "an int8 model that was cast to half precision is refused at its next call",
        {"torch.nn.Module._apply": "quantization/modules.py (self, fn, recurse)"},
        _TORCH,
    ),
    *_lost(
        "a compiled or checkpointed part counts as a plain one; masks and weights of the model in it are refused by "
        "their names",
        {
            f"torch.{name}": "anatomy/params.py"
            for name in (
                "_dynamo.OptimizedModule._orig_mod",
                "distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper._checkpoint_wrapped_module",
            )
        },
        _TORCH,
    ),
    *_lost(
        "hooks on the state of a flat optimizer are not those of its base",
        {f"torch.optim.Optimizer.{one}": "optim/wrapper.py" for one in _STATE_DICT_HOOKS},
        _TORCH,
    ),
    *_lost(
        "masks that were attached within others have to be removed before these",
        {"torch.optim.Optimizer._optimizer_step_pre_hooks": "optim/wrapper.py pruning/enforcer.py"},
        _TORCH,
    ),
    *_lost(
        "nothing: it only names what is not copied",
        {"torch.optim.Optimizer._optimizer_step_post_hooks": "optim/wrapper.py"},
        _TORCH,
    ),
    *_lost(
        "an exported model keeps eager attention, a shrunk one has the default; second derivatives go through any",
        {
            "transformers.PreTrainedConfig._attn_implementation": "export/graph.py objective/state_guard.py "
            "pruning/structured/shrink.py"
        },
    ),
    *_lost(
        "nothing has to be done: the model is saved as any other",
        {"transformers.PreTrainedModel._weight_conversions": "export/native.py"},
        "transformers 5.23; in 5.24 unpacked models have lost it before we look",
    ),
    *_lost("int8 folders are refused in one line", {"torch.Tensor._is_hf_initialized": "models/int8.py"}),
    *_lost(
        _NOT_FOUND,
        {
            "transformers.quantizers.auto.AUTO_QUANTIZATION_CONFIG_MAPPING": "core/registration.py",
            "transformers.quantizers.auto.AUTO_QUANTIZER_MAPPING": "core/registration.py",
            "transformers.quantizers.HfQuantizer.update_attn_implementation": "models/int8.py (self, config)",
            "transformers.quantizers.HfQuantizer.preprocess_model": (
                "models/int8.py export/native.py (self, model, dtype)"
            ),
            "transformers.quantizers.HfQuantizer.postprocess_model": "models/int8.py export/native.py (self, model)",
            "transformers.core_model_loading.ConversionOps.convert": (
                "export/native.py (self, input_dict, source_patterns, target_patterns)"
            ),
            "transformers.core_model_loading.WeightConverter.__init__": (
                "export/native.py (self, source_patterns, target_patterns, operations)"
            ),
        },
    ),
    *_lost(
        _ANOTHER_TRAINING,
        {
            "transformers.Trainer._clip_grad_norm": "training/trainer.py (self, model)",
            "transformers.Trainer._determine_best_metric": "training/trainer.py (self, metrics, trial)",
            "transformers.Trainer._finalize_training": f"{_SEALED} (self, trial, num_train_samples, start_time)",
            "transformers.Trainer._get_train_sampler": "training/trainer.py (self, train_dataset)",
            "transformers.Trainer._init_training_state": (
                f"{_SEALED} (self, max_steps, num_update_steps_per_epoch, num_train_epochs, "
                "resume_from_checkpoint, trial)"
            ),
            "transformers.Trainer._load_best_model": "training/trainer.py (self)",
            "transformers.Trainer._prepare_inputs": "training/trainer.py (self, inputs)",
            "transformers.Trainer._run_epoch": f"{_SEALED} (self, model, epoch)",
            "transformers.Trainer._save_checkpoint": f"{_SEALED} (self, model, trial)",
            # Public by its name, and documented nowhere.
            "transformers.Trainer.current_gradient_accumulation_steps": "training/trainer.py training/hooks.py",
        },
    ),
    *_lost(
        "gates that look at rows give the model all columns that the collator makes",
        {"transformers.Trainer._get_collator_with_removed_columns": "training/hooks.py"},
    ),
    *_lost(
        "the batch size of the arguments, which auto_find_batch_size does not lower",
        {"transformers.Trainer._train_batch_size": "training/hooks.py"},
    ),
    *_lost(
        "checkpoints of a hyperparameter search's trials lie in one folder",
        {"transformers.Trainer._get_output_dir": "training/hooks.py"},
    ),
    *_lost(
        "onnxruntime logs that the model should be simplified",
        {"onnxruntime.quantization.quant_utils.add_pre_process_metadata": "export/onnx_int8.py (model)"},
        "onnxruntime 1.32",
    ),
)
