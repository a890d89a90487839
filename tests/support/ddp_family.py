"""Work for two processes: trains with every flat optimizer and writes weights and memories of this process."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.conftest import tiny_bert
from tests.support.optimizer_family import FLAT, OWN_GRADIENT, recipe
from tests.support.plain_loop import collate, random_split
from tests.support.training import NO_DROPOUT, arguments
from trainflat.pruning import MagnitudePruner
from trainflat.training import FlatTrainer


def trained(name: str, out: Path, sync: bool) -> dict[str, torch.Tensor]:
    model = tiny_bert(**NO_DROPOUT).double()
    trainer = FlatTrainer(
        model,
        arguments(
            out,
            num_train_epochs=1,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            sync_perturbation=sync,
            ddp_find_unused_parameters=False,
            ddp_backend="gloo",
            logging_strategy="no",
        ),
        train_dataset=random_split(24),
        data_collator=collate,
        optimizer=recipe(name),
        masks=MagnitudePruner(model, sparsity=0.6).prune(),
    )
    trainer.train()
    weights = {f"weights/{n}": p.detach() for n, p in model.named_parameters()}
    kept = trainer.flat_optimizer.memory
    memory = {f"memory/{n}/{key}": t for n, p in model.named_parameters() for key, t in kept.get(p, {}).items()}
    return weights | memory


def main(given: str) -> None:
    out = Path(given)
    found = {}
    for perturb, names in (("own", FLAT), ("same", OWN_GRADIENT)):
        for name in names:
            kept = trained(name, out, sync=perturb == "same")
            found |= {f"{perturb}/{name}/{key}": t.clone() for key, t in kept.items()}
    save_file(found, out / f"rank{torch.distributed.get_rank()}.safetensors")
