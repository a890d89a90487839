"""Exports to OpenVINO with int8 weights and activations, by nncf's post-training quantization."""

import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainflat.core.errors import InputError
from trainflat.engines.openvino import OpenVinoRuntime, unobserved
from trainflat.export.base import Source
from trainflat.export.openvino import OpenVino, converted, save
from trainflat.export.runner import Runner

# SmoothQuant (arXiv:2211.10438) moves large input channels into the weights: nncf's default, nearly all of them, and
# none. Which of the two is nearer depends on the model: it helps where a channel is far above the others. So both are
# made.
_SMOOTHING = (0.95, -1)


class OpenVinoInt8(OpenVino):
    """OpenVINO with int8 weights and activations whose ranges some real texts have shown.

    Lookup tables and the head are int8 too.

    Args:
        activations: ``static`` takes their ranges from ``samples`` texts, with and without SmoothQuant, and keeps what
            is nearer to the model on these texts; ``dynamic`` takes them from what comes at run time.
        samples: Texts to look at, of the task where one is given; ``dynamic`` needs none.
    """

    packages = ("openvino", "nncf")
    tolerance = inf

    def __init__(
        self, activations: Literal["static", "dynamic"] = "static", samples: Annotated[int, Field(ge=1)] = 128
    ) -> None:
        self.activations = activations
        self.samples = samples if activations == "static" else 0

    def write(self, source: Source, folder: Path) -> None:
        """Writes two files, ``model.xml`` and ``model.bin``. Raises InputError if no texts came with the model."""
        texts = [{name: row[name] for name in source.inputs} for row in source.texts[: self.samples]]
        if self.activations == "static" and not texts:
            raise InputError("openvino-int8 takes ranges from texts, and got none. Use activations=dynamic.")
        model = converted(source)
        with unobserved(), _quiet():
            if self.activations == "dynamic":
                rounded = _dynamic(model)
            else:
                rounded = _nearest(source, texts, [_static(model.clone(), texts, alpha) for alpha in _SMOOTHING])
        save(rounded, folder / self.file)


def _dynamic(model: Any) -> Any:
    import nncf

    # Of equal speed, asymmetric weights were nearer to the model.
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)


def _static(model: Any, texts: Sequence[Mapping[str, Tensor]], alpha: float) -> Any:
    import nncf

    return nncf.quantize(
        model,
        nncf.Dataset([{name: rows.numpy() for name, rows in text.items()} for text in texts]),
        subset_size=len(texts),
        model_type=nncf.ModelType.TRANSFORMER,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=alpha)
        ),
    )


def _nearest(source: Source, texts: Sequence[Mapping[str, Tensor]], candidates: Iterable[Any]) -> Any:
    """Picks the candidate whose logits are off by least, as a mean over the texts."""
    with torch.inference_mode():
        expected = [source.model(**text) for text in texts]

    def distance(candidate: Any) -> float:
        runner = Runner(OpenVinoRuntime.open(candidate, torch.get_num_threads()))
        pairs = [(runner(**text), logits) for text, logits in zip(texts, expected, strict=True)]
        return fmean(float((found[name] - one[name]).abs().mean()) for found, one in pairs for name in source.outputs)

    return min(candidates, key=distance)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences nncf, which prints bars and what it is about to do."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import nncf

        nncf.set_log_level(logging.ERROR)
        yield
