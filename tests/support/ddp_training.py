"""Work for two processes: trains a tiny model on every process and writes its weights and what was logged."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.teachers import teacher_model
from tests.support.training import NO_DROPOUT, arguments
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer


def main(options: dict[str, Any]) -> None:
    out = Path(options.pop("out"))
    recipe, sparsity = options.pop("recipe"), options.pop("sparsity", None)
    averaging, quantization = options.pop("averaging", None), options.pop("quantization", None)
    gate, layerwise = options.pop("gate", None), options.pop("layerwise", None)
    distillation, reparametrization = options.pop("distillation", None), options.pop("reparametrization", None)
    if distillation is not None:
        distillation["teacher"] = teacher_model().double()
    model = tiny_bert(**NO_DROPOUT).double()
    masks = None if sparsity is None else MagnitudePruner(model, sparsity=sparsity).prune()
    trainer = FlatTrainer(
        model,
        arguments(out, ddp_find_unused_parameters=False, ddp_backend="gloo", **options),
        train_dataset=random_split(),
        eval_dataset=random_split(16, seed=5),
        data_collator=collate,
        optimizer=recipe,
        masks=masks,
        averaging=averaging,
        gate=gate,
        distillation=distillation,
        layerwise=layerwise,
        reparametrization=reparametrization,
        quantization=quantization,
    )
    trainer.train()
    rank = trainer.args.process_index
    save_file({n: p.detach() for n, p in model.named_parameters()}, out / f"rank{rank}.safetensors")
    teaching = trainer.features.get("self_teaching")
    if teaching is not None and teaching.model is not None:
        save_file(dict(teaching.model.named_parameters()), out / f"teacher{rank}.safetensors")
    if layerwise is not None:
        save_file(trainer.features["layerwise"].state_dict(), out / f"maps{rank}.safetensors")
    if quantization is not None:
        save_file(trainer.features["quantization"].quantizer.state_dict(), out / f"ranges{rank}.safetensors")
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    (out / f"rank{rank}.json").write_text(json.dumps({"logs": logs, "processes": trainer.args.world_size}))
