"""What sparse and int8 files weigh; nothing is timed.

BERT-base's shape with random weights (Gaussian, standard deviation 0.02), pruned by magnitude over all matrices of the
encoder together (84.9 million weights). "Encoder" counts every tensor of its layers in the written file: positions,
values, scales of int8, biases, LayerNorms. Embeddings and pooler, 97 MB in float32, are left out there, and counted
where the whole file is meant. The bound is the entropy of a mask with that share of zeros plus the bytes of the values.
"""

import math
import tempfile
from pathlib import Path

from safetensors import safe_open
from transformers import PreTrainedModel

from benchmarks.result import Result, options
from benchmarks.workload import bert_base
from trainflat.anatomy.params import prunable
from trainflat.export import save_sparse
from trainflat.models import no_bars
from trainflat.pruning import MagnitudePruner
from trainflat.quantization import quantize_dynamic

LAYERS = ".encoder.layer."
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def main() -> None:
    """Sparse files at 90 and 97 % zeros, then int8 with its embeddings."""
    result = Result("sizes", __doc__, options(__doc__).parse_args())
    with tempfile.TemporaryDirectory() as place:
        for sparsity, values in ((0.9, "fp32"), (0.97, "fp32"), (0.9, "int8"), (0.97, "int8")):
            _sparse(result, Path(place) / f"{sparsity}-{values}", sparsity, values)
        _int8(result, Path(place))
    result.finish()


def _sparse(result: Result, folder: Path, sparsity: float, values: str) -> None:
    model = bert_base()
    matrices = {name: w for name, w in prunable(model).items() if LAYERS in name}
    MagnitudePruner(model, sparsity=sparsity).prune()
    save_sparse(model, folder, values=values)  # type: ignore[arg-type]
    written = tensor_bytes(folder / "trainflat.safetensors")
    encoder = sum(size for name, size in written.items() if LAYERS in name)
    dense = sum(4 * p.numel() for name, p in model.named_parameters() if LAYERS in name)
    modules = {name.removesuffix(".weight") for name in matrices}
    inside = sum(size for name, size in written.items() if _module(name) in modules and not name.endswith(".bias"))
    kept = sum(int(w.count_nonzero()) for w in matrices.values())
    entries = sum(w.numel() for w in matrices.values())
    about = f"{sparsity:.0%} zeros, {values} values: encoder"
    limited = (sparsity, values) == (0.97, "int8")
    result.figure(about, encoder / 1e6, "MB", at_most=11.0 if limited else None)
    limited = (sparsity, values) == (0.9, "fp32")
    result.figure(f"{about} over dense", encoder / dense, "×", at_most=0.16 if limited else None)
    bound = entries * entropy(kept / entries) / 8 + kept * BYTES[values]
    result.figure(f"{about}, matrices over the bound", inside / bound, "×", at_most=1.10)


def _int8(result: Result, place: Path) -> None:
    model = bert_base()
    for embeddings in (False, True):
        small = quantize_dynamic(model, embeddings=embeddings)
        with_or_without = "with" if embeddings else "without"
        share = _saved(small, place / with_or_without) / _saved(model, place / "dense")
        claim = f"int8 file {with_or_without} embeddings over float32"
        result.figure(claim, share, "×", at_most=0.30 if embeddings else None)


def _saved(model: PreTrainedModel, folder: Path) -> int:
    with no_bars():
        model.save_pretrained(folder)
    return (folder / "trainflat.safetensors").stat().st_size


def tensor_bytes(path: Path) -> dict[str, int]:
    """Bytes of every tensor in a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118  # it is no dict


def entropy(share: float) -> float:
    """Bits per entry of a mask whose entries are 1 with this probability, each on its own."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)


def _module(name: str) -> str:
    return name.rpartition(".")[0]


if __name__ == "__main__":
    main()
