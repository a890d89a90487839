"""ViT and DeiT: patches in place of words, LayerNorms before the sub-layers."""

from trainflat.anatomy.layout import Layout, Part

VIT = Layout(
    family="ViT",
    layer="layers.#",
    query=(Part("attention.q_proj"),),
    key=(Part("attention.k_proj"),),
    value=Part("attention.v_proj"),
    attention_output="attention.o_proj",
    attention_norm="layernorm_before",
    ffn_in=(Part("mlp.fc1"),),
    ffn_out="mlp.fc2",
    ffn_norm="layernorm_after",
    # Tokens and positions are parameters [1, n, hidden], not tables; the projection is a convolution [hidden, channels,
    # height, width], so its hidden axis is 0.
    embeddings={
        "embeddings.cls_token": 2,
        "embeddings.mask_token": 2,
        "embeddings.position_embeddings": 2,
        "embeddings.patch_embeddings.projection": 0,
    },
    norms=("layernorm",),
    attention_core="attention",
    ffn_core="mlp",
    pre_norm=True,
)
