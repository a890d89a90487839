"""BERT, the families that began as a copy of it, and ELECTRA, which may widen narrower embeddings."""

from dataclasses import replace

from trainflat.anatomy.layout import Layout, Part

BERT = Layout(
    family="BERT",
    layer="encoder.layer.#",
    query=(Part("attention.self.query"),),
    key=(Part("attention.self.key"),),
    value=Part("attention.self.value"),
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    ffn_in=(Part("intermediate.dense"),),
    ffn_out="output.dense",
    ffn_norm="output.LayerNorm",
    embeddings={f"embeddings.{kind}_embeddings": 1 for kind in ("word", "position", "token_type")},
    norms=("embeddings.LayerNorm",),
    attention_core="attention.self",
    ffn_core="intermediate",
)
# Differs by where its positions start, which changes no shape.
ROBERTA = replace(BERT, family="RoBERTa", positions_from_pad=True)
# Small generators and discriminators have narrow embeddings; with equal widths the projection does not exist.
ELECTRA = replace(BERT, family="ELECTRA", projection="embeddings_project")
