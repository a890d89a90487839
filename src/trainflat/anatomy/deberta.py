"""DeBERTa-v2 and v3: relative positions go through the key's and the query's matrices, or through two of their own."""

from dataclasses import replace
from typing import Any

import torch

from trainflat.anatomy.bert import BERT
from trainflat.anatomy.layout import Part


def _scale(size: int, config: Any) -> float:
    # As transformers computes it, in float32 whatever the model's type.
    terms = 1 + sum(kind in (config.pos_att_type or ()) for kind in ("c2p", "p2c"))
    return 1 / float(torch.sqrt(torch.tensor(size, dtype=torch.float) * terms))


DEBERTA = replace(
    BERT,
    family="DeBERTa-v2",
    # Without `share_att_key` positions have projections of their own, which meet keys and queries head by head.
    query=(Part("attention.self.query_proj"), Part("attention.self.pos_query_proj")),
    key=(Part("attention.self.key_proj"), Part("attention.self.pos_key_proj")),
    value=Part("attention.self.value_proj"),
    # Relative positions enter the attention at the hidden width and are normalised by a LayerNorm of the encoder.
    embeddings={**BERT.embeddings, "encoder.rel_embeddings": 1},
    norms=("embeddings.LayerNorm", "encoder.LayerNorm"),
    first_layer={"encoder.conv": "a convolution follows the first layer"},
    mixers={
        "encoder.conv": "its convolution mixes all hidden dimensions",
        "embeddings.embed_proj": "its embeddings have another width than its hidden states",
    },
    scale=_scale,
)
