"""Recipes of tiny runs: one for each member of every table, and for each option, that a resumed run could lose."""

import copy
from pathlib import Path
from typing import Any

from tests.support import optimizer_family
from tests.support.gated_runs import section as gate_section
from trainflat.averaging import AVERAGING
from trainflat.optim import OPTIMIZERS
from trainflat.protocols.teaching import OWN
from trainflat.pruning import PRUNERS
from trainflat.pruning.gates import GATES, METHODS
from trainflat.sharpness import MEASURES

ADAMW = {"name": "adamw", "lr": 2e-3}
SAM = {"name": "sam", "rho": 0.05, "lr": 2e-3}
ONE_ROUND = {"name": "iterative", "sparsities": [0.6], "rewind": 2}
SOURCE = "iterative"  # whose masks tickets are made of
TUNED = "teacher"  # a fine-tuned model beside the others
RAGGED = {"budget": "parameters", "shape": "ragged"}  # tiny layers have no 32 units
_ROWS = {"loss-preservation", "grasp", "gradient-norm"}  # pruners and gates that measure the loss on rows
_MEASURES: dict[str, dict[str, Any]] = {
    "hessian": {"k": 1, "iterations": 3, "samples": 2},
    "spectrum": {"probes": 1, "steps": 4},
    "keskar": {"epsilon": 1e-3},
}


def _pruner(name: str) -> Any:
    return {"name": name, "rows": 8} if name in _ROWS else name


def _training(protocol: dict[str, Any] = ONE_ROUND, **options: Any) -> dict[str, Any]:
    return {"training": options, "protocol": protocol}


PROTOCOLS = {
    SOURCE: {"protocol": {"name": "iterative", "sparsities": [0.5, 0.8], "rewind": 2}},
    "dense": {"protocol": {"name": "dense"}},
    "iterative to the start": {"protocol": {**ONE_ROUND, "rewind": 0, "scope": "layer"}},
    "iterative without rewinding": {"protocol": {**ONE_ROUND, "rewind": "none"}},
    "iterative, head kept": {"protocol": {**ONE_ROUND, "head": "keep"}},
    "ticket": {"protocol": {"name": "ticket", "sparsity": 0.5, "run": SOURCE}},
    "ticket, shuffled": {"protocol": {"name": "ticket", "sparsity": 0.5, "run": SOURCE, "structure": "layer-shuffled"}},
    "ticket at random": {"protocol": {"name": "ticket", "sparsity": 0.5, "structure": "random"}},
    "structured": {"protocol": {"name": "structured", "sparsities": [0.3, 0.5], "rows": 16, **RAGGED}},
    "post-training": {
        "model": TUNED,
        "protocol": {"name": "post-training", "sparsities": [0.3, 0.5], "rows": 16, **RAGGED},
    },
    **{
        f"one-shot {name}": {"protocol": {"name": "one-shot", "sparsities": [0.6], "pruner": _pruner(name)}}
        for name in PRUNERS
    },
    "transfer": {"protocol": {"name": "transfer", "sparsities": [0.4, 0.8]}},
}
TRAINING = {
    "bf16": _training(precision="bf16", optimizer=ADAMW),
    "bf16 of sam": _training(precision="bf16"),
    **{name: _training(averaging={"name": name}, optimizer=ADAMW) for name in AVERAGING},
    "q8bert": _training(quantization="q8bert"),
    "q8bert and swa": _training(quantization="q8bert", averaging={"name": "swa"}, optimizer=ADAMW),
    "distillation": _training(distillation={"teacher": "teacher", "weight": 0.5, "temperature": 2}),
    "teacher renewed": _training(
        distillation={"teacher": "teacher", "weight": "entropy", "temperature": 2, "renew": "best"}
    ),
    "layers": _training(
        distillation={"teacher": "teacher", "weight": 1}, layerwise={"matching": "random-windows", "map": "separate"}
    ),
    "powerprop": _training(reparametrization={"name": "powerprop", "alpha": 2}),
    "rows by length": _training(batching="length", schedule="cosine", warmup=0.2),
    "last kept": _training(keep="last", patience=None, schedule="constant"),
    "evaluated by epoch": _training(evaluate_every="epoch", accumulate=1),
}
BY_OPTIMIZER = {
    f"optimizer {name}": _training({"name": "dense"}, optimizer=optimizer_family.recipe(name)) for name in OPTIMIZERS
} | {"label noise": _training({"name": "dense"}, optimizer={"name": "label-noise", "lr": 1e-3, "probability": 0.3})}
GATED = {
    f"gate {name}": _training({"name": "gradual", "gate": gate_section(name)}, optimizer=ADAMW, patience=None, epochs=4)
    for name in GATES
} | {
    "gate of sam": _training(
        {"name": "gradual", "gate": {**gate_section("hard-movement"), "perturb": "both"}}, patience=None, epochs=4
    )
}
_RISE = {"name": "linear", "start": 0.1, "hold": 0.4}
_LEARNED: dict[str, dict[str, Any]] = {  # options under which a few steps take units away
    "cofi": {"score_lr": 2.0, "multiplier_lr": 0.5, "tolerance": 0.5},
    "block-movement": {"score_lr": 0.5, "block": 4},
    "mlpruning": {"score_lr": 0.8, "first_ratio": 4.0},
}


def _learned(method: str, **options: Any) -> dict[str, Any]:
    """A teacher of the run's own, layers and their maps, rates to choose from, and a smaller model trained again."""
    section = {"name": method, "target_sparsity": 0.4, "schedule": _RISE, **_LEARNED.get(method, {})}
    finetune = {"epochs": 1, "lr": [1e-4, 1e-3], "held_out": 0.2}
    protocol = {"name": "structured", "method": section, "dense": {"epochs": 1}, "finetune": finetune}
    taught = {"distillation": {"teacher": OWN, "weight": 1}, "layerwise": {"matching": "random-windows"}}
    return _training(protocol, **{"optimizer": ADAMW, "patience": None, "epochs": 4} | taught | options)


LEARNED = {f"method {name}": _learned(name) for name in METHODS} | {
    "method cofi of sam": _learned("cofi", optimizer=SAM, precision="bf16")
}
EVALUATION = {
    f"measure {name}": {
        "protocol": ONE_ROUND,
        "evaluation": {"flatness": {"measures": [{"name": name, **_MEASURES.get(name, {})}], "rows": 8}},
    }
    for name in MEASURES
} | {
    "int8": {"protocol": ONE_ROUND, "evaluation": {"int8": True}},
    "latency": {"protocol": ONE_ROUND, "evaluation": {"latency": {"batches": [1], "lengths": [8], "repeats": 1}}},
}
FAMILIES = {
    "protocols": PROTOCOLS,
    "training": TRAINING,
    "optimizers": BY_OPTIMIZER,
    "gates": GATED,
    "methods": LEARNED,
    "evaluation": EVALUATION,
}
# Of these the quick suite kills one run each. ``test_kill.py`` kills an iterative one, and tests of the Trainer resume
# every optimizer.
QUICK = {
    "protocols": ["structured"],
    "training": ["q8bert and swa"],
    "gates": ["gate hard-movement"],
    "evaluation": ["measure keskar"],
}
TWO_PROCESSES = {
    "two processes": {"protocol": ONE_ROUND},
    "two processes, bf16": _training(precision="bf16"),
    "two processes, cofi": _learned("cofi", layerwise={"matching": "fixed"}),
}


def recipes(place: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """Whole recipes; ``place`` holds the model, the teacher and the rows."""
    return {name: _merged(_base(place), copy.deepcopy(sections), place) for name, sections in chosen.items()}


def _base(place: Path) -> dict[str, Any]:
    """Dropout, accumulation, evaluation inside epochs, early stopping."""
    return {
        "task": {"name": "files", "train_file": str(place / "classification.jsonl"), "text": "text", "label": "label"},
        "model": "model",
        "training": {
            "epochs": 3,
            "batch_size": 8,
            "accumulate": 2,
            "max_length": 16,
            "optimizer": SAM,
            "evaluate_every": 3,
            "log_every": 2,
            "patience": 3,
        },
        "evaluation": {"latency": {"batches": []}},
    }


def _merged(base: dict[str, Any], sections: dict[str, Any], place: Path) -> dict[str, Any]:
    made = {**base, **{k: {**base[k], **v} if isinstance(base.get(k), dict) else v for k, v in sections.items()}}
    made["model"] = str(place / made["model"])
    teaching = made["training"].get("distillation")
    if teaching and teaching["teacher"] != OWN:
        teaching["teacher"] = str(place / "teacher")
    if made["protocol"].get("run"):
        made["protocol"]["run"] = str(place / made["protocol"]["run"])
    return made
