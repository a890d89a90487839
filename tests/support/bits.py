"""Fixed tiny runs over every optimizer, gate, averaging and the rest, and what their weights were when last looked at.

``python -m tests.support.bits`` writes ``bits.json`` beside this file anew: the hash of the weights, the masks and the
training losses of each stage of each run. A change that is not meant to change what is learned leaves all as they are.
"""

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

import trainflat
from tests.support.families import WORDS, config, write
from trainflat.averaging import AVERAGING
from trainflat.optim import OPTIMIZERS
from trainflat.pruning import PRUNERS
from trainflat.pruning.gates import GATES
from trainflat.records.run import Record, Stage

KEPT = Path(__file__).with_suffix(".json")
RAMP = {"name": "cubic", "start": 0.1, "hold": 0.4}
GATE_OPTIONS: dict[str, dict[str, Any]] = {
    "pins": {"window": 3},
    "soft-movement": {"penalty": 4.0, "score_lr": 0.5},
    "l0": {"target_sparsity": 0.6, "score_lr": 0.5},
    "block-movement": {"penalty": 4.0, "score_lr": 2.0, "block": 4},
    "mlpruning": {"target_sparsity": 0.6, "first_ratio": 2.0, "score_lr": 2.0},
    "grasp": {"sparsity": 0.6, "rows": 8},
    "gradient-norm": {"sparsity": 0.6, "rows": 8},
}
OPTIMIZER_OPTIONS: dict[str, dict[str, Any]] = {"entropy-sgd": {"inner_steps": 2}}
SAM = {"name": "sam", "rho": 0.05, "lr": 1e-3}


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """A name and the sections of a recipe in which it departs from the common one."""
    one_shot = {"protocol": {"name": "one-shot", "sparsities": [0.5]}}
    for name in OPTIMIZERS:
        optimizer = {"name": name, "lr": 1e-3} | OPTIMIZER_OPTIONS.get(name, {})
        yield f"optimizer {name}", {"training": {"optimizer": optimizer}, "protocol": {"name": "dense"}}
    for name in GATES:
        gate = {"name": name, "schedule": RAMP} | GATE_OPTIONS.get(name, {"sparsity": 0.6})
        yield f"gate {name}", {"protocol": {"name": "gradual", "gate": gate}}
    for name in PRUNERS:
        yield f"pruner {name}", {"protocol": one_shot["protocol"] | {"pruner": name}}
    for name in AVERAGING:
        yield f"averaging {name}", {"training": {"averaging": name, "optimizer": SAM}, **one_shot}
    for rewind in ("none", 0, 2):
        yield f"rewind {rewind}", {"protocol": {"name": "iterative", "sparsities": [0.3, 0.6], "rewind": rewind}}
    yield (
        "hard movement and SAM",
        {
            "training": {"optimizer": SAM},
            "protocol": {"name": "gradual", "gate": {"name": "hard-movement", "sparsity": 0.6, "schedule": RAMP}},
        },
    )
    yield "powerprop", {"training": {"reparametrization": "powerprop"}, **one_shot}
    yield "q8bert", {"training": {"quantization": "q8bert"}, **one_shot}
    yield "teacher", {"training": {"distillation": {"teacher": "MODEL"}}, **one_shot}
    yield (
        "teacher renewed",
        {"training": {"distillation": {"teacher": "MODEL", "renew": "best", "weight": "entropy"}}, **one_shot},
    )
    yield "accumulation", {"training": {"accumulate": 2, "optimizer": SAM}, **one_shot}
    yield "random batches", {"training": {"batching": "random", "schedule": "cosine", "warmup": 0.2}, **one_shot}


def environment() -> dict[str, str]:
    """Return what decides the bits of a sum on this machine besides the code."""
    return {
        "torch": torch.__version__.split("+")[0],
        "processor": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "model": next(
            (line.split(":")[1].strip() for line in _processor_lines() if line.startswith("model name")), "unknown"
        ),
    }


def _processor_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def make_place(folder: Path) -> Path:
    """Writes a random encoder with its tokenizer and forty rows with two classes."""
    torch.manual_seed(0)
    write(folder / "model", transformers.BertForSequenceClassification(config("Bert")))
    rows = []
    for i in range(40):
        words = [WORDS[(i * k + k) % len(WORDS)] for k in range(1, 3 + i % 6)]
        rows.append({"text": " ".join(words) + f" {i}", "label": ["no", "yes"][i % 2]})
    for name, part in (("train", rows[:32]), ("dev", rows[32:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


def run(place: Path, sections: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """Runs one case and returns the entry of each of its stages."""
    training = {"epochs": 2, "batch_size": 8, "max_length": 16, "log_every": 1, "evaluate_every": 3}
    files = {"train_file": str(place / "train.jsonl"), "validation_file": str(place / "dev.jsonl")}
    recipe = {
        "task": {"name": "files", "text": "text", "label": "label", **files},
        "model": str(place / "model"),
        "training": {**training, "optimizer": {"name": "adamw", "lr": 1e-3}, **sections.get("training", {})},
        "protocol": sections["protocol"],
        "evaluation": {"latency": {"batches": []}},
    }
    recipe = json.loads(json.dumps(recipe).replace('"MODEL"', json.dumps(str(place / "model"))))
    record: Record = trainflat.run(recipe, out=out)
    [folder] = out.iterdir()
    return [_entry(folder / "stages" / stage.name, stage) for stage in record.stages]


def _entry(folder: Path, stage: Stage) -> dict[str, Any]:
    training = stage.training
    losses = [] if training is None else [point["loss"] for point in training.curve]
    return {
        "stage": stage.name,
        "passes": None if training is None else training.passes,
        "losses": [round(loss, 4) for loss in losses],
        "zeros": sum(matrix.zeros for matrix in stage.matrices),
        "sha256": _weights_sha256(folder),
    }


def _weights_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    """Writes what every case gives now."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        place = make_place(Path(scratch))
        runs = {name: run(place, sections, Path(scratch) / f"runs-{name}") for name, sections in cases()}
    KEPT.write_text(json.dumps({"environment": environment(), "runs": runs}, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
