"""ALBERT: all layers share one set of tensors, behind narrow embeddings."""

from trainflat.anatomy.layout import Layout, Part

_ONE_SET = "all layers share one set of tensors, so a layer cannot be dropped alone"

ALBERT = Layout(
    family="ALBERT",
    layer="encoder.albert_layer_groups.#.albert_layers.#",
    query=(Part("attention.query"),),
    key=(Part("attention.key"),),
    value=Part("attention.value"),
    attention_output="attention.dense",
    attention_norm="attention.LayerNorm",
    ffn_in=(Part("ffn"),),
    ffn_out="ffn_output",
    ffn_norm="full_layer_layer_norm",
    # The embeddings and their LayerNorm have the narrower embedding_size, so only the projection writes hidden states.
    embeddings={},
    norms=(),
    projection="encoder.embedding_hidden_mapping_in",
    shared=True,
    pooler="pooler",
    missing={"layer": _ONE_SET},
    attention_core="attention",
    ffn_core="ffn",
)
