"""Writes the model card of a compressed model from its record."""

from pathlib import Path

from trainflat.core.formatting import plural
from trainflat.records.compression import Compression
from trainflat.records.structure import LayerWidths

_CARD = """---
library_name: transformers
tags: [trainflat, structured-pruning]
---

# {name}

`{model}` ({architecture}), made smaller by `trainflat compress` {training}.

| | original | this model |
|---|---|---|
| {metric} on {split} ({rows:,} rows) | {before} | {after} |
| weights, float32 | {before_mb:.1f} MB | {after_mb:.1f} MB |
| parameters | {before_parameters:,} | {after_parameters:,} |
| one forward pass, {batch} × {length}, {threads} | {before_ms:.1f} ms | {after_ms:.1f} ms |

On these rows {agreement}; it is {speedup:.2f} times as fast (quartiles {low:.2f} to {high:.2f}),
measured in turn on one machine. What to keep was chosen on {calibration:,} rows of the training split,
{labels} their labels.

## Structure

| layer | heads | feed-forward units |
|---|---|---|
{layers}

## Loading

```python
{loading}
```
{notes}"""
_LOADED = """from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("{name}"{remote})
tokenizer = AutoTokenizer.from_pretrained("{name}"{remote})"""
_SHRUNK = """import trainflat

model = trainflat.load("{name}")  # or from_pretrained, once trainflat is imported"""
_REMOTE = "\n\n# Without trainflat, by the file that lies in the folder:\n"


def model_card(found: Compression, name: str, *, plain: bool, auto_class: str) -> str:
    """Returns the card as Markdown.

    Args:
        found: The record.
        name: Of the new folder.
        plain: Whether the architecture's own class loads it, without trainflat.
        auto_class: Of transformers, that loads it.
    """
    remote = "" if plain else ", trust_remote_code=True"
    loading = _LOADED.format(auto=auto_class, name=name, remote=remote)
    if not plain:
        loading = _SHRUNK.format(name=name) + _REMOTE + loading
    return _CARD.format(
        name=name,
        model=Path(found.model).name,  # folders above it are nobody's business
        architecture=found.architecture,
        training=_training(found.retrained),
        metric=found.metric,
        split=found.split,
        rows=found.after.rows,
        before=_points(found.before.score),
        after=_points(found.after.score),
        before_mb=found.before.bytes / 1e6,
        after_mb=found.after.bytes / 1e6,
        before_parameters=found.before.parameters,
        after_parameters=found.after.parameters,
        before_ms=found.before.milliseconds,
        after_ms=found.after.milliseconds,
        batch=found.batch,
        length=plural(found.length, "token"),
        threads=plural(found.threads, "thread"),
        agreement=found.agreed,
        speedup=found.speedup,
        low=found.speedup_low,
        high=found.speedup_high,
        calibration=found.calibration_rows,
        labels="with" if found.labels_read else "without",
        layers="\n".join(
            f"| {number} | {_left(layer, len(layer.heads), found.structure.heads, 'attention')} | "
            f"{_left(layer, layer.units, found.structure.units, 'feed_forward')} |"
            for number, layer in enumerate(found.structure.layers)
        ),
        loading=loading,
        notes="".join(f"\n- {note}" for note in found.notes),
    )


def _training(epochs: float) -> str:
    if not epochs:
        return "without training it again"
    taught = f"{plural(epochs, 'epoch', form='g')} of distillation from the original"
    return f"and {taught}, beside the labels of all training rows"


def _points(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"


def _left(layer: LayerWidths, count: int, of: int, part: str) -> str:
    state = getattr(layer, part)
    return {"bias-only": "only its bias", "skipped": "skipped"}.get(state, f"{count} of {of}")
