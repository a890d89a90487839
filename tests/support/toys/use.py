"""Names a toy of each kind as a user would, in a copy of the package; prints what was found, as JSON."""

import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from transformers import BertForSequenceClassification

import trainflat
from trainflat.anatomy import anatomy_of
from trainflat.cli.plans import print_plan
from trainflat.commands.export import export
from trainflat.core.listing import KINDS, listed
from trainflat.report import write_report
from trainflat.report.options import completed


def found(folder: Path) -> dict[str, object]:
    from tests.support.families import config, write

    model = BertForSequenceClassification(config("Bert"))
    write(folder / "model", model)
    recipe = {
        "task": "toy",
        "model": str(folder / "model"),
        "training": {
            "epochs": 1,
            "batch_size": 8,
            "max_length": 16,
            "optimizer": {"name": "toy", "lr": 1e-3},
            "toy": 3,
        },
        "protocol": {"name": "toy", "pruner": {"name": "toy", "factor": 2}},
        "evaluation": {"flatness": {"measures": ["toy"], "rows": 8}, "latency": {"batches": []}},
    }
    plan = trainflat.plan(recipe, out=folder)
    with redirect_stdout(StringIO()) as shown:
        print_plan(plan)
    record = trainflat.run(recipe, out=folder / "runs")
    page = write_report([record], folder / "report", ("html", "csv"))
    [run] = (folder / "runs").iterdir()
    gates = [
        trainflat.plan(
            recipe
            | {"protocol": {"name": "gradual", "gate": {"name": gate, "schedule": {"name": "cubic", "start": 1}}}},
            out=folder,
        )
        for gate in ("toy", "toy-score")
    ]
    model.config.model_type = "toy"
    whole, half = record.stages
    return {
        "shown": [line.split() for line in shown.getvalue().splitlines() if "counted" in line],
        "compared": completed({"name": "toy"})["further"],
        "list": [kind for kind in KINDS if "toy" in listed(kind)[1]],
        "plan": [str(plan.recipe.training.optimizer.further), *plan.features["toy"], *(s.name for s in plan.stages)],
        "gates": [gate.protocol.gate.section()["name"] for gate in gates],
        "hash": json.dumps(record.recipe["training"]["toy"]),
        "trained": [whole.training.optimizer, whole.training.features, whole.training.curve[-1]["toy_count"]],
        "pruned": [
            half.sizes.encoder_sparsity,
            sum(m.zeros for m in half.matrices) / sum(m.entries for m in half.matrices),
        ],
        "flatness": sorted(half.flatness),
        "task": [record.task.name, record.data["train"].rows],
        "report": [
            "Toys, counted." in page.read_text(),
            "toys" in (page.parent / "results.csv").read_text().split("\n")[0],
        ],
        "export": export(run / "stages" / "half", "toy", folder / "out", task="toy").difference,
        "heads": len(anatomy_of(model).units("head")),
        "refused": refused(recipe | {"training": recipe["training"] | {"toy": "many"}}, folder),
        "unknown": refused(recipe | {"training": recipe["training"] | {"toys": 3}}, folder),
        "own": refused(recipe | {"training": recipe["training"] | {"snapshot": 3}}, folder),
    }


def refused(recipe: dict[str, object], folder: Path) -> str:
    try:
        trainflat.plan(recipe, out=folder)
    except trainflat.core.errors.InputError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    torch.manual_seed(0)
    print(json.dumps(found(Path(sys.argv[1]))))  # noqa: T201
