"""Work for two processes: trains a tiny model under one gate after the other and writes what each ended with."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.training import NO_DROPOUT, arguments
from trainflat.core.errors import InputError
from trainflat.training import FlatTrainer


def main(given: dict[str, Any]) -> None:
    out = Path(given["out"])
    for case, (optimizer, gate, options) in given["cases"].items():
        model = tiny_bert(**NO_DROPOUT).double()
        trainer = FlatTrainer(
            model,
            arguments(out / case, ddp_find_unused_parameters=False, ddp_backend="gloo", **options),
            train_dataset=random_split(),
            data_collator=collate,
            optimizer=optimizer,
            gate=gate,
        )
        rank = trainer.args.process_index
        try:
            trainer.train()
        except InputError as error:
            (out / f"{case}-{rank}.txt").write_text(str(error))
            continue
        save_file({n: p.detach() for n, p in model.named_parameters()}, out / f"{case}-{rank}.safetensors")
