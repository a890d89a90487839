"""ModernBERT: queries, keys and values in one matrix, a gated feed-forward in another, no biases."""

from trainflat.anatomy.layout import Layout, Part

# Without dimension i its partner would be rotated by the angle of another pair, and queries would match other keys.
_ROTATED = "rotary positions rotate dimensions in pairs, by angles that depend on a dimension's index"

MODERNBERT = Layout(
    family="ModernBERT",
    layer="layers.#",
    query=(Part("attn.Wqkv", 0, 3),),
    key=(Part("attn.Wqkv", 1, 3),),
    value=Part("attn.Wqkv", 2, 3),
    attention_output="attn.Wo",
    attention_norm="attn_norm",
    # GeGLU: unit i is row i of the activated half times row i of the gating half, so both rows go together.
    ffn_in=(Part("mlp.Wi", 0, 2), Part("mlp.Wi", 1, 2)),
    ffn_out="mlp.Wo",
    ffn_norm="mlp_norm",
    embeddings={"embeddings.tok_embeddings": 1},
    norms=("embeddings.norm", "final_norm"),
    missing={"query-key dimension": _ROTATED},
    attention_core="attn",
    ffn_core="mlp",
    pre_norm=True,
    rotary=True,
    first_layer={"layers": "transformers builds the first layer without a LayerNorm"},
)
