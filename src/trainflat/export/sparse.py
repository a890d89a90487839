"""Writes sparse files: the values that pruning left, and where they stand, in plain safetensors.

Each pruned matrix ``X.weight`` is four tensors, ``X.sparse_index``, ``X.sparse_values``, ``X.sparse_shape`` and, where
values are integers, ``X.sparse_scales`` (see `packed`). All other tensors are as ever, and ``config.json`` says
``quant_method: trainflat-sparse``. Once ``trainflat`` is imported, ``from_pretrained`` reads such a folder into an
ordinary dense model; so does ``trainflat.load``, which needs less of transformers.
"""

from collections.abc import Mapping
from math import inf
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel

from trainflat.anatomy.params import prunable, unwrapped
from trainflat.core.errors import InputError
from trainflat.core.files import load_tensors, read_json, save_tensors, write_json
from trainflat.export.base import Exporter, Source, copy_tokenizer, new_folder
from trainflat.export.packed import Values, check_values, pack, packed_bytes
from trainflat.export.unpacking import QUANT_METHOD, load_sparse
from trainflat.models.quiet import no_bars
from trainflat.models.safe_load import load_dense
from trainflat.models.stored import CONFIG, WEIGHTS, quant_method
from trainflat.quantization.layout import OWN_WEIGHTS


def save_sparse(
    model: PreTrainedModel | str | Path,
    out: str | Path,
    *,
    values: Values = "fp32",
    embeddings: Values = "fp32",
) -> Path:
    """Writes a model as a folder that holds its zeros as positions.

    With ``fp32`` nothing is lost: matrices of any kind that are smaller that way are held sparse, all bits as they are,
    but for -0.0, which becomes 0.0 there.

    Args:
        model: A model, or the folder of one, such as a stage of a run; the tokenizer is copied from the folder.
        out: The new folder, which appears when it is complete.
        values: How the encoder's matrices hold what was not pruned: ``fp32`` as it is, ``fp16`` rounded, ``int8``
            rounded, with a scale per row.
        embeddings: The same for embedding tables.

    Returns:
        ``out``, with a manifest of the SHA-256 of its files.

    Raises:
        InputError: ``out`` is there already, the model cannot be read, or a value cannot be held.
    """
    exporter, model = Sparse(values=values, embeddings=embeddings), unwrapped(model)
    source = None if isinstance(model, PreTrainedModel) else Path(model)
    loaded = model if isinstance(model, PreTrainedModel) else _load(Path(model))
    with new_folder(Path(out)) as folder:
        if source is not None:
            copy_tokenizer(source, folder)
        exporter.write_model(loaded, folder)
    return Path(out)


class Sparse(Exporter):
    """The values that pruning left and where they stand; from_pretrained loads it, dense, once trainflat is imported.

    Args:
        values: How the encoder's matrices hold what was not pruned; as for ``save_sparse``.
        embeddings: The same for embedding tables.
    """

    file, keeps_type = OWN_WEIGHTS, True

    def __init__(self, values: Values = "fp32", embeddings: Values = "fp32") -> None:
        check_values(values)
        check_values(embeddings, "embeddings")
        self.values, self.embeddings = values, embeddings

    @property
    def tolerance(self) -> float:
        """Allows for kernels that sum in another order where weights, the same bits, lie elsewhere in memory."""
        return 1e-6 if self.values == self.embeddings == "fp32" else inf

    def write(self, source: Source, folder: Path) -> None:
        """Writes ``config.json`` and ``trainflat.safetensors``."""
        self.write_model(source.model, folder)

    def write_model(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes, as ``write`` does, a model without a tokenizer."""
        with no_bars():
            model.save_pretrained(folder, max_shard_size="1000GB")
        _rewrite(folder, _held(model, self.values, self.embeddings))

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> nn.Module:
        del threads
        model: nn.Module = load_sparse(folder)
        return model


def _rewrite(folder: Path, held: Mapping[str, Values]) -> None:
    """Makes a dense checkpoint a sparse one, in place."""
    dense, _ = load_tensors(folder / WEIGHTS)
    lost = sorted(n for n, values in held.items() if values != "fp32" and (n not in dense or dense[n].ndim != 2))
    if lost:
        raise InputError(
            f"{lost[0]} is no matrix of that name in its file, so only values=fp32 can be exported for this "
            "architecture."
        )
    tensors: dict[str, Tensor] = {}
    for name in sorted(dense):
        tensors |= _parts_or_dense(name, dense[name], held.get(name, "fp32"))
    save_tensors(folder / OWN_WEIGHTS, tensors, {"format": "pt"})
    (folder / WEIGHTS).unlink()
    config = read_json(folder / CONFIG)
    how = {"quant_method": QUANT_METHOD, "weights": OWN_WEIGHTS, "dequantize": True}
    write_json(folder / CONFIG, config | {"quantization_config": how})


def _parts_or_dense(name: str, tensor: Tensor, values: Values) -> dict[str, Tensor]:
    stem, _, last = name.rpartition(".")
    if last != "weight" or tensor.ndim != 2 or not tensor.is_floating_point():
        return {name: tensor}
    parts = pack(tensor, values, name)
    if packed_bytes(parts) >= tensor.numel() * tensor.element_size():
        return {name: tensor}
    return {f"{stem}.{part}": value for part, value in parts.items()}


def _held(model: nn.Module, values: Values, embeddings: Values) -> dict[str, Values]:
    """Says how each matrix that may be rounded is held."""
    tables = (name for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    return {f"{name}.weight": embeddings for name in tables} | dict.fromkeys(prunable(model), values)


def _load(folder: Path) -> PreTrainedModel:
    return load_sparse(folder) if quant_method(folder) == QUANT_METHOD else load_dense(folder)
