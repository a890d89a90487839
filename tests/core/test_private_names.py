"""Private names of other libraries: all are listed, still there, and can be done without."""

import ast
import inspect
import pkgutil
import sys
import tempfile
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, PrinterCallback, Trainer

import trainflat
from tests.support.fresh import run_fresh
from trainflat.core.errors import InputError
from trainflat.core.foreach import foreach
from trainflat.core.private_names import PRIVATE_NAMES
from trainflat.export import save_sparse
from trainflat.export.graph import traceable
from trainflat.optim import SAM
from trainflat.pruning import Masks
from trainflat.quantization import has_integer_kernel, quantize_dynamic
from trainflat.training import FlatArguments, FlatTrainer, hooks

SOURCE = Path(trainflat.__file__).parent


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def ours(trees):
    """Private names that this package defines itself: functions, classes, attributes of its own objects."""
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def touched(tree):
    """Private names that a file reads or writes on objects, also by getattr, and private modules that it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr"):
            yield from (arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (part for name in names for part in name.split("."))


def overridden():
    """(file, name) of private methods that stand in place of a library's."""
    for module in pkgutil.walk_packages([str(SOURCE)], "trainflat."):
        if module.name.endswith("__main__"):
            continue
        home = import_module(module.name)
        text = inspect.getsource(home)
        for kind in vars(home).values():
            if inspect.isclass(kind) and kind.__module__ == module.name:
                foreign = [base for base in kind.__mro__ if base.__module__.split(".")[0] in ("torch", "transformers")]
                for name in (name for name in vars(kind) if is_private(name) and f"def {name}" in text):
                    if any(name in vars(base) and callable(vars(base)[name]) for base in foreign):
                        yield Path(home.__file__).relative_to(SOURCE).as_posix(), name


def test_every_private_name_of_another_library_is_in_the_table():
    trees = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text("utf8")) for path in SOURCE.rglob("*.py")}
    own = {*ours(trees.values()), "_replace"}  # of named tuples, where Python documents it
    found = {
        (file, name) for file, tree in trees.items() for name in touched(tree) if is_private(name) and name not in own
    }
    listed = {(file, one.name.rpartition(".")[2]) for one in PRIVATE_NAMES for file in one.used}
    assert found | set(overridden()) <= listed
    assert {name for file, name in listed if file == "core/foreach.py"} == set(fused(trees.values()))
    for file, name in listed:
        text = (SOURCE / file).read_text("utf8")
        assert name in text or file == "core/foreach.py" or "_optimizer_{what}_{when}_hooks" in text


def fused(trees):
    """Names of torch's functions behind the calls of ``foreach``."""
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "foreach" and node.args[1:]:
            yield f"_foreach_{ast.literal_eval(node.args[0])}"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Objects of classes that have a private name on their instances only."""
    folder, weight = tmp_path_factory.mktemp("model"), nn.Parameter(torch.zeros(1))
    config = BertConfig(hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4, vocab_size=4)
    BertModel(config).save_pretrained(folder)
    model = BertModel.from_pretrained(folder)
    wrapper = "torch.distributed.algorithms._checkpoint.checkpoint_wrapper."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what torch imports for them
        compiled = torch.compile(nn.Linear(1, 1))
        checkpointed = import_module(wrapper[:-1]).checkpoint_wrapper(nn.Linear(1, 1))
    return {
        "torch._dynamo.OptimizedModule": compiled,
        f"{wrapper}CheckpointWrapper": checkpointed,
        "torch.Tensor": next(model.parameters()),
        "torch.optim.Optimizer": torch.optim.SGD([weight], 0.1),
        "transformers.PreTrainedModel": model,
        "transformers.Trainer": trained(),
    }


def library(name):
    """The module of a dotted name, and what comes after it."""
    for end in range(name.count("."), 0, -1):
        try:
            module = import_module(".".join(name.split(".")[:end]))
        except ImportError:
            continue
        return module, name.split(".")[end:]
    raise AssertionError(name)


@pytest.mark.parametrize("one", PRIVATE_NAMES, ids=lambda one: one.name)
def test_it_is_there_and_takes_what_we_give(one, examples):
    owner, path = library(one.name)
    for part in path[:-1]:
        owner = getattr(owner, part)
    found = getattr(owner, path[-1], None)
    if found is None:
        found = getattr(examples.get(one.name.rpartition(".")[0]), path[-1], None)
    assert found is not None, f"{one.name} was seen in {one.seen} and is gone; without it: {one.without}"
    if one.parameters is not None:
        assert tuple(inspect.signature(found).parameters)[: len(one.parameters)] == one.parameters


def trained(**options):
    """FlatTrainer after a small training."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, **sizes))
    rows = [{"input_ids": [i % 9 + 3] * 4, "labels": i % 2, "unread": 1} for i in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = FlatArguments(
            folder,
            max_steps=4,
            per_device_train_batch_size=4,
            save_strategy="steps",
            save_steps=4,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
        )
        trainer = FlatTrainer(model, arguments, train_dataset=rows, optimizer="sam", **options)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        assert [one.name for one in Path(folder).iterdir()] == ["checkpoint-4"]
    return trainer


def steps(**options):
    return [p.detach() for p in trained(**options).model.parameters()]


@pytest.mark.parametrize("gone", [one.name.rpartition(".")[2] for one in hooks.HOOKS])
def test_flat_trainer_is_refused_where_the_trainer_has_no_such_method(monkeypatch, gone):
    monkeypatch.delattr(Trainer, gone)
    with pytest.raises(
        InputError, match=rf"FlatTrainer needs transformers\.Trainer\.{gone} as in .*Install one of those"
    ):
        steps()


def test_flat_trainer_is_refused_where_a_method_takes_something_else(monkeypatch):
    monkeypatch.setattr(Trainer, "_run_epoch", lambda self, number: None)
    with pytest.raises(InputError, match=r"needs transformers\.Trainer\._run_epoch"):
        steps()


def test_flat_trainer_is_refused_where_the_loop_divides_losses_by_another_number(monkeypatch):
    monkeypatch.setattr(hooks, "DIVISOR", replace(hooks.DIVISOR, name="transformers.Trainer.gone"))
    with pytest.raises(InputError, match=r"needs transformers\.Trainer\.gone"):
        steps()


@pytest.mark.parametrize("gone", ["_train_batch_size", "_get_output_dir", "_get_collator_with_removed_columns"])
def test_flat_trainer_trains_without(monkeypatch, gone):
    gate = {"name": "grasp", "sparsity": 0.5, "rows": 4}
    expected = steps(gate=gate)
    monkeypatch.setattr(hooks, "getattr", lambda o, n, d: d if n == gone else getattr(o, n, d), raising=False)
    assert all(map(torch.equal, steps(gate=gate), expected))


@pytest.mark.parametrize("operation", sorted(o.name for o in PRIVATE_NAMES if "_foreach_" in o.name))
def test_lists_of_tensors_need_no_fused_function(monkeypatch, operation):
    name = operation.removeprefix("torch._foreach_")
    some, others = ([torch.randn(3, 2), torch.randn(4)] for _ in range(2))
    arguments = {"norm": (2.0,), "lerp_": (others, 0.3), "mul": (0.7,), "zero_": ()}.get(name, (others,))
    options = {"alpha": 0.3} if name in ("add", "add_") else {}
    results = []
    for _ in range(2):
        tensors = [t.clone() for t in some]
        made = foreach(name, tensors, *arguments, **options)
        results.append(tensors if name.endswith("_") else made)
        monkeypatch.delattr(torch, f"_foreach_{name}", raising=False)
    assert all(torch.equal(fused, single) for fused, single in zip(*results, strict=True))


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.mark.parametrize("gone", ["_int_mm", "_version"])
def test_int8_layers_compute_without(monkeypatch, gone):
    model, x = quantize_dynamic(small()), torch.randn(3, 8)
    expected = model(x)
    if gone == "_int_mm":
        monkeypatch.delattr(torch, gone)
        has_integer_kernel.cache_clear()
    else:
        monkeypatch.setattr(torch.Tensor, gone, property(lambda _: (_ for _ in ()).throw(AttributeError(gone))))
    try:
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
        assert gone != "_int_mm" or not has_integer_kernel()
    finally:
        has_integer_kernel.cache_clear()


def test_int8_layers_refuse_half_precision_where_torch_casts_by_another_name(monkeypatch):
    model = quantize_dynamic(small(), activations="batch")
    for layer in (model[0], model[2]):
        layer.scale = layer.scale.half()  # as it comes out where torch does not call _apply
    with pytest.raises(InputError, match=r"steps of an int8 layer are torch\.float16\. Leave the model in float32"):
        model(torch.randn(3, 8))


def stepped(optimizer, model):
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 8)).square().sum().backward()
        with optimizer.perturbed():
            optimizer.zero_grad()
            model(torch.ones(2, 8)).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_flat_optimizers_step_without_the_hooks_on_states(monkeypatch):
    expected = stepped(SAM((model := small()).parameters(), lr=0.1), model)
    monkeypatch.setattr("trainflat.optim.wrapper._STATE_DICT_HOOKS", ("_gone",))
    optimizer = SAM((model := small()).parameters(), lr=0.1)
    assert all(map(torch.equal, stepped(optimizer, model), expected))
    optimizer.load_state_dict(optimizer.state_dict())


class Hiding:
    """An optimizer without the attribute that holds its hooks."""

    def __init__(self, optimizer):
        self.inner, self.held = optimizer, None

    def __getattr__(self, name):
        if name == "_optimizer_step_pre_hooks":
            raise AttributeError(name)
        return getattr(self.inner, name)


def test_masks_within_masks_come_off_in_order_without_the_hooks():
    model = small()
    outer, inner = (Masks({"0.weight": torch.rand(16, 8) > share}).hold(model) for share in (0.3, 0.8))
    optimizer = Hiding(torch.optim.SGD(model.parameters(), 0.1))
    with outer.attach(optimizer):
        with inner.attach(optimizer):
            assert optimizer.held is inner
        assert optimizer.held is outer
    assert optimizer.held is None


@pytest.mark.slow  # Dynamo takes long to import
def test_dynamo_is_kept_out_by_the_public_name_too():
    code = "import torch, torch._dynamo; del torch._disable_dynamo; from trainflat.optim import SAM; print(SAM.step)"
    done = run_fresh(code=code)
    assert "step" in done.stdout, done.stderr


def test_exports_need_no_name_of_the_attention():
    class Model:
        config = None

        def set_attn_implementation(self, name):
            self.config = name

    source = SimpleNamespace(model=Model())
    with traceable(source, "onnx"):
        assert source.model.config == "eager"
    assert source.model.config == "eager"


def test_int8_folders_are_refused_where_transformers_marks_nothing(monkeypatch, tmp_path, examples):
    quantize_dynamic(examples["transformers.PreTrainedModel"]).save_pretrained(tmp_path)
    monkeypatch.setattr("trainflat.models.int8._READ", "_gone")
    with pytest.raises(InputError, match="does not mark what it reads of int8"):
        trainflat.load(tmp_path)


@pytest.mark.parametrize(
    "gone",
    [
        "transformers.quantizers.HfQuantizer.update_attn_implementation",
        "transformers.core_model_loading.WeightConverter",
        "transformers.quantizers.auto.AUTO_QUANTIZER_MAPPING",
    ],
)
def test_sparse_folders_are_read_without_hooks_of_transformers(monkeypatch, tmp_path, examples, gone):
    model = examples["transformers.PreTrainedModel"]
    folder = save_sparse(model, tmp_path / "sparse")
    if gone.endswith("update_attn_implementation"):
        monkeypatch.setattr("trainflat.models.int8.OwnQuantizer.update_attn_implementation", lambda _, config: config)
    elif gone.endswith("MAPPING"):
        monkeypatch.delitem(import_module("transformers.quantizers.auto").AUTO_QUANTIZER_MAPPING, "trainflat-sparse")
    else:
        monkeypatch.setitem(sys.modules, "trainflat.export.native", None)  # it cannot be imported
    with pytest.raises((InputError, OSError, ValueError, ImportError)):
        BertModel.from_pretrained(folder)
    loaded = trainflat.load(folder).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())
