"""Which parameters are pruned."""

from torch import nn

# Parts whose linear layers only prepare the encoder's input (Electra's `embeddings_project`, patch projections).
_INPUT_PARTS = ("embedding", "embeddings")


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weight matrices that the papers prune, by name in ``model``.

    Every linear layer of the encoder (query, key, value, attention output, both feed-forward layers) and the pooler;
    not embeddings, biases, LayerNorm or the task head (Chen et al. 2020; Na, Mehta and Strubell 2022). The encoder of a
    transformers model is its ``base_model``; in any other module every linear layer counts. A matrix that
    several layers share (ALBERT) is listed once. Frozen matrices are listed too: freezing is not pruning.

    Example:
        >>> list(prunable(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))))
        ['0.weight', '2.weight']
    """
    encoder = getattr(model, "base_model", model)
    inside = {
        id(module.weight)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and not any(part.startswith(_INPUT_PARTS) for part in name.split("."))
    }
    return {name: p for name, p in model.named_parameters() if id(p) in inside}
