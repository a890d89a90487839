"""Records that look like those of real runs, made up from a formula, for tests of what reads records."""

import math
from collections.abc import Sequence
from typing import Any

from trainflat.commands.bench.compare import timing
from trainflat.core.timing import Sample
from trainflat.records.comparison import Cell, Comparison, Variant
from trainflat.records.diagnosis import Cut, Diagnosis, Measured, Sensitivity
from trainflat.records.run import (
    Fingerprint,
    Int8,
    Latency,
    MatrixZeros,
    ModelInfo,
    Record,
    Sizes,
    Stage,
    TaskInfo,
    Timing,
    Training,
)
from trainflat.records.structure import LayerWidths, Structure

SPARSITIES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
_KINDS = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
_KINDS += ("intermediate.dense", "output.dense")


def make_structure(sparsity: float, layers: int = 6) -> Structure:
    """What pruning might leave of MiniLM: fewer heads and units in later layers, and a last layer without attention."""
    widths = [
        LayerWidths(heads=list(range(12 - round(12 * sparsity * n / layers))), units=round(1536 * (1 - sparsity)))
        for n in range(layers)
    ]
    widths[-1] = LayerWidths(heads=[], units=widths[-1].units, attention="skipped")
    parameters, left = 1_774_464 * layers, round(1_774_464 * layers * (1 - sparsity))
    sizes = {"heads": 12, "units": 1536, "hidden": 384, "dense_hidden": 384, "vocabulary": 30522}
    return Structure(
        layers=widths,
        **sizes,
        dense_vocabulary=30522,
        parameters=left,
        dense_parameters=parameters,
        multiply_adds=1 - sparsity,
        kept_sha256="5a" * 32,
        score="obs",
        repair="least-squares",
    )


_METRICS = {"stsb": "pearson", "cola": "matthews", "squad": "f1"}


def make_records() -> list[Record]:
    """Two tasks × two optimizers × three seeds × six sparsities; one task with the papers' model."""
    sam = {"name": "sam", "base": "adamw", "lr": 2e-5, "rho": 0.05}
    settings = [("stsb", "bert-base-uncased", 12, 88.6), ("stdlib-docs", "minilm", 6, 71.0)]
    return [
        make_record(task, model, layers, optimizer, seed, best=best + gain)
        for task, model, layers, best in settings
        for optimizer, gain in (({"name": "adamw", "lr": 2e-5}, 0.0), (sam, 0.6))
        for seed in range(3)
    ]


def make_record(
    task: str = "stsb",
    model: str = "bert-base-uncased",
    layers: int = 12,
    optimizer: dict[str, Any] | None = None,
    seed: int = 0,
    *,
    best: float = 88.0,
    protocol: dict[str, Any] | None = None,
    sparsities: Sequence[float] = SPARSITIES,
    partial: bool = False,
    latency: bool = True,
    **changes: Any,
) -> Record:
    """One run. ``changes`` replace fields of the record."""
    optimizer = optimizer or {"name": "adamw", "lr": 2e-5}
    protocol = protocol or {"name": "iterative", "rewind": 0, "sparsities": [s for s in sparsities if s]}
    metric = _METRICS.get(task, "accuracy")
    training = {"epochs": 3, "batch_size": 32, "optimizer": optimizer}
    recipe = {
        "task": {"name": task},
        "model": {"name": model, "layers": None},
        "seed": seed,
        "training": training,
        "protocol": protocol,
    }
    values: dict[str, Any] = {
        "name": f"{task}-{optimizer['name']}",
        "recipe": recipe,
        "recipe_hash": f"{task}-{model}-{optimizer}-{protocol}-{seed}",
        "seed": seed,
        "protocol": protocol["name"],
        "optimizer": optimizer["name"],
        "task": TaskInfo(name=task, kind="classification", split="validation", metric=metric, labels=["a", "b"]),
        "model": ModelInfo(
            name=model, architecture="BertModel", layers=layers, parameters=10**8, weights_sha256="ab" * 32
        ),
        "data": {
            "train": Fingerprint(rows=5749, sha256="1f" * 32, source="file:train.parquet", partial=partial),
            "validation": Fingerprint(rows=1500, sha256="2e" * 32, source="file:validation.parquet"),
        },
        "environment": {"python": "3.11.9", "torch": "2.13.0", "threads": 2, "gpu": "none"},
        "stages": [
            make_stage(
                s,
                (metric, best),
                layers,
                optimizer["name"],
                seed,
                one_shot=protocol["name"] == "one-shot",
                latency=latency,
            )
            for s in sparsities
        ],
    }
    return Record(**(values | changes)).sealed()


def make_stage(
    sparsity: float, aim: tuple[str, float], layers: int, optimizer: str, seed: int, *, one_shot: bool, latency: bool
) -> Stage:
    """A stage whose score falls with the square of its sparsity."""
    metric, best = aim
    score = best - 14 * sparsity**3 - 3 * sparsity**2 + 0.4 * math.sin(7 * seed + 11 * sparsity + len(optimizer))
    matrices = make_matrices(sparsity, layers, optimizer)
    trained = sparsity == 0 or not one_shot
    shapes = [(1, 128), (32, 128)] if latency else []
    times = [
        Latency(
            batch=b,
            length=t,
            threads=2,
            device="cpu",
            median=6e-5 * b * t,
            low=5e-5 * b * t,
            high=7e-5 * b * t,
            repeats=7,
        )
        for b, t in shapes
    ]
    return Stage(
        name="dense" if sparsity == 0 else f"sparsity-{sparsity:.2f}",
        target_sparsity=sparsity,
        scores={"validation": {metric: score, "loss": 40.0}},
        sizes=make_sizes(matrices),
        matrices=matrices,
        training=make_training(optimizer, seed, sparsity) if trained else None,
        timing=Timing(
            train_seconds=(210.0 if optimizer == "adamw" else 433.0) * trained, evaluate_seconds=4.0, latency=times
        ),
    )


def make_matrices(sparsity: float, layers: int, optimizer: str) -> list[MatrixZeros]:
    """As a global ranking leaves them: more zeros in late layers and in the feed-forward part."""
    entries, made = 589_824, []
    for layer in range(layers):
        for k, kind in enumerate(_KINDS):
            slope = (
                0.18
                * sparsity
                * (1 - sparsity)
                * ((layer + 1) / layers - 0.5 + 0.25 * (k - 2.5) + 0.4 * (optimizer == "sam") * (k % 2 - 0.5))
            )
            made.append(
                (f"bert.encoder.layer.{layer}.{kind}.weight", round(entries * min(1, max(0, sparsity + slope))))
            )
    made.append(("bert.pooler.dense.weight", round(entries * sparsity * 0.4)))
    return [MatrixZeros(name=name, entries=entries, zeros=zeros) for name, zeros in made]


def make_sizes(matrices: Sequence[MatrixZeros]) -> Sizes:
    """Sizes that fit the matrices."""
    entries, zeros = sum(m.entries for m in matrices), sum(m.zeros for m in matrices)
    parameters = entries + 24_000_000
    return Sizes(
        parameters=parameters,
        nonzero=parameters - zeros,
        encoder_sparsity=zeros / entries,
        total_sparsity=zeros / parameters,
        dense_bytes=4 * parameters,
        bitmask_bytes=4 * (parameters - zeros) + entries // 8,
        packed_bytes=4 * (parameters - zeros) + entries // 10,
    )


def make_training(optimizer: str, seed: int, sparsity: float) -> Training:
    """A loss that falls, and SAM's own curves where it is SAM."""
    curve = []
    for step in range(20, 541, 20):
        loss = 0.25 + 1.8 * math.exp(-step / 130) + 0.05 * math.sin(step / 17 + 2 * seed) + 0.2 * sparsity
        own = (
            {"perturbation": 0.05, "loss_gap": 0.06 + 0.05 * math.exp(-step / 200 - seed / 5)}
            if optimizer == "sam"
            else {}
        )
        curve.append(
            {"step": float(step), "epoch": step / 180, "loss": loss, "learning_rate": 2e-5, "grad_norm": 1.0, **own}
        )
    passes = 1080 if optimizer == "sam" else 540
    evaluations = [{"step": 180.0 * k, "epoch": float(k), "validation/score": 80.0 + k} for k in (1, 2, 3)]
    return Training(
        optimizer=optimizer, steps=540, epochs=3.0, passes=passes, best_step=540, curve=curve, evaluations=evaluations
    )


def comparison(points: list[tuple[float, float | None, int]], **more: Any) -> Comparison:
    """Variants of (latency, score, bytes) in one cell, timed in seven equal rounds."""
    first = [points[0][0]] * 7
    timings = [
        timing([Sample(seconds, 0.0)] * 7, [Sample(s, 0.0) for s in first] if n else None)
        for n, (seconds, _, _) in enumerate(points)
    ]
    variants = [Variant(model=f"m{n}", backend="torch", bytes=b, score=s) for n, (_, s, b) in enumerate(points)]
    cell = Cell(batch=4, length=8, threads=1, timings=timings)
    return Comparison(variants=variants, cells=[cell], rounds=7, environment={}, **more)


ROWS = 512


def diagnosis(
    score: float = 75.0,
    one_shot: tuple[float, ...] = (75.0, 74.0),
    layers: tuple[float, ...] = (),
    int8: float = 75.0,
    **changes: Any,
) -> Diagnosis:
    """A model whose only varying numbers are its scores."""
    values: dict[str, Any] = {
        "model": "runs/a/stages/dense",
        "architecture": "BertForSequenceClassification",
        "parameters": 1000,
        "weights_sha256": "ab",
        "sparsity": 0.0,
        "task": "files",
        "split": "validation",
        "metric": "accuracy",
        "score": score,
        "sampled_score": score,
        "sampled_rows": ROWS,
        "flatness_rows": 128,
        "seconds": 1.0,
        "data": {"validation": Fingerprint(rows=ROWS, sha256="", source="file:dev.csv")},
        "flatness": [Measured(name="hessian", options={}, values={"trace": 2.0, "eigenvalue_1": 1.0}, seconds=1.0)],
        "int8": Int8(
            activations="token", embeddings=False, head=False, bytes=1200, scores={"validation": {"accuracy": int8}}
        ),
        "one_shot": [Cut(sparsity=k / 10, score=each, emptied=["pooler"]) for k, each in enumerate(one_shot, 1)],
        "sensitivity": [
            Sensitivity(axis="layer", part=f"layer {k}", cut=Cut(sparsity=0.8, score=each))
            for k, each in enumerate(layers)
        ],
        "environment": {},
        "seed": 0,
    }
    return Diagnosis(**(values | changes))
