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
_FOREACH = ("add", "add_", "copy_", "div_", "lerp_", "mul", "mul_", "norm", "sub", "sub_", "zero_")
_ANOTHER_TRAINING = "FlatTrainer is refused in one line: a training would silently be another one"
_TRAINER_METHODS = {
    "_clip_grad_norm": ("self", "model"),
    "_determine_best_metric": ("self", "metrics", "trial"),
    "_finalize_training": ("self", "trial", "num_train_samples", "start_time"),
    "_get_train_sampler": ("self", "train_dataset"),
    "_init_training_state": (
        "self",
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ),
    "_load_best_model": ("self",),
    "_prepare_inputs": ("self", "inputs"),
    "_run_epoch": ("self", "model", "epoch"),
    "_save_checkpoint": ("self", "model", "trial"),
}
_ALSO_SEALED = ("_finalize_training", "_init_training_state", "_run_epoch", "_save_checkpoint")
_STATE_DICT_HOOKS = [
    f"_optimizer_{what}_{when}_hooks" for what in ("state_dict", "load_state_dict") for when in ("pre", "post")
]

PRIVATE_NAMES: tuple[PrivateName, ...] = (
    *(
        PrivateName(
            f"torch._foreach_{one}", ("core/foreach.py",), _TORCH, "one tensor after the other, to the same bits"
        )
        for one in _FOREACH
    ),
    PrivateName(
        "torch._disable_dynamo",
        ("optim/wrapper.py",),
        _TORCH,
        "torch.compiler.disable, which makes importing this package slower",
        ("fn", "recursive"),
    ),
    PrivateName(
        "torch._int_mm",
        ("quantization/arithmetic.py",),
        _TORCH,
        "integers are multiplied as floats, to the same values but for sums beyond 2^24",
    ),
    PrivateName(
        "torch.Tensor._version",
        ("quantization/modules.py", "optim/wrapper.py"),
        _TORCH,
        "row sums of int8 weights are taken at each call; gradients that were set to 0 count as computed ones",
    ),
    PrivateName(
        "torch.nn.Module._apply",
        ("quantization/modules.py",),
        _TORCH,
        "an int8 model that was cast to half precision is refused at its next call",
        ("self", "fn", "recurse"),
    ),
    PrivateName(
        "torch._dynamo.OptimizedModule._orig_mod",
        ("anatomy/params.py",),
        _TORCH,
        "a compiled model counts as a plain one; masks and weights of the model in it are refused by their names",
    ),
    PrivateName(
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper._checkpoint_wrapped_module",
        ("anatomy/params.py",),
        _TORCH,
        "the same for parts under activation checkpointing",
    ),
    *(
        PrivateName(
            f"torch.optim.Optimizer.{one}",
            ("optim/wrapper.py",),
            _TORCH,
            "hooks on the state of a flat optimizer are not those of its base",
        )
        for one in _STATE_DICT_HOOKS
    ),
    PrivateName(
        "torch.optim.Optimizer._optimizer_step_pre_hooks",
        ("optim/wrapper.py", "pruning/enforcer.py"),
        _TORCH,
        "masks that were attached within others have to be removed before these",
    ),
    PrivateName(
        "torch.optim.Optimizer._optimizer_step_post_hooks",
        ("optim/wrapper.py",),
        _TORCH,
        "nothing: it only names what is not copied",
    ),
    PrivateName(
        "transformers.PreTrainedConfig._attn_implementation",
        ("export/graph.py", "objective/state_guard.py"),
        _TRANSFORMERS,
        "an exported model keeps eager attention; second derivatives go through whatever attention a model has",
    ),
    PrivateName(
        "transformers.PreTrainedModel._weight_conversions",
        ("export/native.py",),
        "transformers 5.23; in 5.24 unpacked models have lost it before we look",
        "nothing has to be done: the model is saved as any other",
    ),
    PrivateName(
        "torch.Tensor._is_hf_initialized", ("models/int8.py",), _TRANSFORMERS, "int8 folders are refused in one line"
    ),
    PrivateName(
        "transformers.quantizers.auto.AUTO_QUANTIZATION_CONFIG_MAPPING",
        ("core/registration.py",),
        _TRANSFORMERS,
        _NOT_FOUND,
    ),
    PrivateName(
        "transformers.quantizers.auto.AUTO_QUANTIZER_MAPPING", ("core/registration.py",), _TRANSFORMERS, _NOT_FOUND
    ),
    *(
        PrivateName(
            f"transformers.Trainer.{one}",
            ("training/trainer.py", *(["training/sealed.py"] if one in _ALSO_SEALED else [])),
            _TRANSFORMERS,
            _ANOTHER_TRAINING,
            parameters,
        )
        for one, parameters in _TRAINER_METHODS.items()
    ),
    PrivateName(
        "transformers.Trainer.current_gradient_accumulation_steps",  # public by its name, and documented nowhere
        ("training/trainer.py", "training/hooks.py"),
        _TRANSFORMERS,
        _ANOTHER_TRAINING,
    ),
    PrivateName(
        "transformers.Trainer._get_collator_with_removed_columns",
        ("training/hooks.py",),
        _TRANSFORMERS,
        "gates that look at rows give the model all columns that the collator makes",
    ),
    PrivateName(
        "transformers.Trainer._train_batch_size",
        ("training/hooks.py",),
        _TRANSFORMERS,
        "the batch size of the arguments, which auto_find_batch_size does not lower",
    ),
    PrivateName(
        "transformers.Trainer._get_output_dir",
        ("training/hooks.py",),
        _TRANSFORMERS,
        "checkpoints of a hyperparameter search's trials lie in one folder",
    ),
    PrivateName(
        "transformers.quantizers.HfQuantizer.update_attn_implementation",
        ("models/int8.py",),
        _TRANSFORMERS,
        _NOT_FOUND,
        ("self", "config"),
    ),
    PrivateName(
        "transformers.quantizers.HfQuantizer.preprocess_model",
        ("models/int8.py", "export/native.py"),
        _TRANSFORMERS,
        _NOT_FOUND,
        ("self", "model", "dtype"),
    ),
    PrivateName(
        "transformers.quantizers.HfQuantizer.postprocess_model",
        ("models/int8.py", "export/native.py"),
        _TRANSFORMERS,
        _NOT_FOUND,
        ("self", "model"),
    ),
    PrivateName(
        "transformers.core_model_loading.ConversionOps.convert",
        ("export/native.py",),
        _TRANSFORMERS,
        _NOT_FOUND,
        ("self", "input_dict", "source_patterns", "target_patterns"),
    ),
    PrivateName(
        "transformers.core_model_loading.WeightConverter.__init__",
        ("export/native.py",),
        _TRANSFORMERS,
        _NOT_FOUND,
        ("self", "source_patterns", "target_patterns", "operations"),
    ),
    PrivateName(
        "onnxruntime.quantization.quant_utils.add_pre_process_metadata",
        ("export/onnx_int8.py",),
        "onnxruntime 1.32",
        "onnxruntime logs that the model should be simplified",
        ("model",),
    ),
)
