"""MPNet. All layers share its table of relative positions, one column per head, so no layer's units include it."""

from trainflat.anatomy.layout import Layout, Part

MPNET = Layout(
    family="MPNet",
    layer="encoder.layer.#",
    query=(Part("attention.attn.q"),),
    key=(Part("attention.attn.k"),),
    value=Part("attention.attn.v"),
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    ffn_in=(Part("intermediate.dense"),),
    ffn_out="output.dense",
    ffn_norm="output.LayerNorm",
    embeddings={"embeddings.word_embeddings": 1, "embeddings.position_embeddings": 1},
    norms=("embeddings.LayerNorm",),
    attention_core="attention.attn",
    ffn_core="intermediate",
    position_scores=True,
    positions_from_pad=True,
)
