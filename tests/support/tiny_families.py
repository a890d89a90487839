"""A tiny random model of every architecture that has an anatomy, in float64."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn

SIZES: dict[str, Any] = {"vocab_size": 24, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
SIZES |= {"intermediate_size": 10, "max_position_embeddings": 20, "pad_token_id": 0}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
RELATIVE = {"relative_attention": True, "position_biased_input": False, "type_vocab_size": 0, "position_buckets": 4}
RELATIVE |= {"pos_att_type": ["c2p", "p2c"], "norm_rel_ebd": "layer_norm"}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
IMAGES = {"image_size": 8, "patch_size": 4, "num_labels": 2} | QUIET
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SIZES),
    "camembert": ("Camembert", SIZES),
    "roberta": ("Roberta", SIZES),
    "xlm-roberta": ("XLMRoberta", SIZES),
    "distilbert": (
        "DistilBert",
        {"vocab_size": 24, "dim": 12, "hidden_dim": 10, "n_layers": 2, "n_heads": 3, "max_position_embeddings": 20},
    ),
    "electra": ("Electra", SIZES | {"embedding_size": 4}),
    "electra as wide": ("Electra", SIZES | {"embedding_size": 12}),
    "mpnet": ("MPNet", SIZES),
    "albert": ("Albert", SIZES | {"embedding_size": 12}),
    "deberta-v2": ("DebertaV2", SIZES | RELATIVE | {"share_att_key": True}),
    "deberta-v2 with its own positions": ("DebertaV2", SIZES | RELATIVE | {"share_att_key": False}),
    "modernbert": ("ModernBert", SIZES | ENDS | {"num_attention_heads": 3}),
    "vit": ("ViT", {k: v for k, v in SIZES.items() if k[:3] in ("hid", "num", "int")} | IMAGES),
}


def make(name: str, seed: int = 0) -> Any:
    """A random model in float64 whose biases and LayerNorms are random too."""
    prefix, options = MODELS[name]
    torch.manual_seed(seed)
    head = "ForImageClassification" if prefix == "ViT" else "ForSequenceClassification"
    config = getattr(transformers, f"{prefix}Config")(**options)
    model = getattr(transformers, f"{prefix}{head}")(config).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model


def logits(model: Any) -> Tensor:
    return answered(model).logits


def states(encoder: Any) -> list[Tensor]:
    """The last hidden states, and what a pooler makes of them where there is one."""
    found = answered(encoder)
    return [found[name] for name in ("last_hidden_state", "pooler_output") if found.get(name) is not None]


@torch.no_grad()
def answered(model: Any) -> Any:
    if "pixel" in model.main_input_name:
        torch.manual_seed(1)
        return model(torch.randn(3, 3, 8, 8, dtype=torch.float64))
    ids = torch.tensor([[1, 5, 7, 3, 2], [1, 9, 4, 2, 0]])
    return model(input_ids=ids, attention_mask=(ids != 0).long())
