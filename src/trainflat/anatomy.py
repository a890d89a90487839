"""Where the architecture families keep their matrices. Data only: nothing is traced, no modelling file is copied."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Anatomy:
    """The matrices of one layer, for one architecture family.

    Attributes:
        layer: Path of a layer below the encoder; ``#`` stands for its number, ``*`` for a number that says nothing
            (groups of shared layers).
        matrices: Module path below the layer -> kind.
    """

    layer: str
    matrices: Mapping[str, str]

    def locate(self, name: str) -> tuple[int | None, str] | None:
        """Layer number and kind of a parameter, or None if it is none of this family's matrices."""
        layer = re.escape(self.layer).replace(r"\#", r"(?P<number>\d+)").replace(r"\*", r"\d+")
        found = re.search(rf"(?:^|\.){layer}\.(?P<path>.+)\.weight$", name)
        kind = self.matrices.get(found["path"]) if found else None
        if found is None or kind is None:
            return None
        number = found.groupdict().get("number")
        return (None if number is None else int(number)), kind


_BERT_FFN = {"intermediate.dense": "ffn_in", "output.dense": "ffn_out"}

FAMILIES: dict[str, Anatomy] = {
    # Also RoBERTa, XLM-R, CamemBERT, ELECTRA and most others that began as a copy of BERT.
    "bert": Anatomy(
        "encoder.layer.#",
        {
            "attention.self.query": "query",
            "attention.self.key": "key",
            "attention.self.value": "value",
            "attention.output.dense": "attention_output",
            **_BERT_FFN,
        },
    ),
    "distilbert": Anatomy(
        "transformer.layer.#",
        {
            "attention.q_lin": "query",
            "attention.k_lin": "key",
            "attention.v_lin": "value",
            "attention.out_lin": "attention_output",
            "ffn.lin1": "ffn_in",
            "ffn.lin2": "ffn_out",
        },
    ),
    "mpnet": Anatomy(
        "encoder.layer.#",
        {
            "attention.attn.q": "query",
            "attention.attn.k": "key",
            "attention.attn.v": "value",
            "attention.attn.o": "attention_output",
            **_BERT_FFN,
        },
    ),
    "deberta-v2": Anatomy(
        "encoder.layer.#",
        {
            "attention.self.query_proj": "query",
            "attention.self.key_proj": "key",
            "attention.self.value_proj": "value",
            "attention.output.dense": "attention_output",
            **_BERT_FFN,
        },
    ),
    "albert": Anatomy(
        "albert_layer_groups.*.albert_layers.*",
        {
            "attention.query": "query",
            "attention.key": "key",
            "attention.value": "value",
            "attention.dense": "attention_output",
            "ffn": "ffn_in",
            "ffn_output": "ffn_out",
        },
    ),
    "modernbert": Anatomy(
        "layers.#",
        {"attn.Wqkv": "query_key_value", "attn.Wo": "attention_output", "mlp.Wi": "ffn_in", "mlp.Wo": "ffn_out"},
    ),
}


def matrix_kind(name: str) -> tuple[int | None, str]:
    """Layer number and kind of a prunable matrix, from its name.

    The number is None outside the layers, and where layers share the matrix. The known families have the kinds
    ``query``, ``key``, ``value``, ``query_key_value``, ``attention_output``, ``ffn_in``, ``ffn_out`` and ``pooler``;
    in any other module the first number in the path counts as the layer, and what follows it is the kind.

    Example:
        >>> matrix_kind("bert.encoder.layer.3.attention.self.query.weight")
        (3, 'query')
        >>> matrix_kind("blocks.1.mixer.weight")
        (1, 'mixer')
    """
    for family in FAMILIES.values():
        found = family.locate(name)
        if found is not None:
            return found
    parts = name.removesuffix(".weight").split(".")
    if "pooler" in parts:
        return None, "pooler"
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if number is None:
        return None, parts[-1]
    return int(parts[number]), ".".join(parts[number + 1 :]) or "weight"
