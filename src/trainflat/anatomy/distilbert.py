"""DistilBERT: BERT without token types and pooler, with names of its own."""

from trainflat.anatomy.layout import Layout, Part

DISTILBERT = Layout(
    family="DistilBERT",
    layer="transformer.layer.#",
    query=(Part("attention.q_lin"),),
    key=(Part("attention.k_lin"),),
    value=Part("attention.v_lin"),
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    ffn_in=(Part("ffn.lin1"),),
    ffn_out="ffn.lin2",
    ffn_norm="output_layer_norm",
    embeddings={"embeddings.word_embeddings": 1, "embeddings.position_embeddings": 1},
    norms=("embeddings.LayerNorm",),
    attention_core="attention",
    ffn_core="ffn",
    intermediate="hidden_dim",
)
