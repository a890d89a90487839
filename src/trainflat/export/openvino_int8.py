"""OpenVINO with int8 weights and activations, by nncf's post-training quantization."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from math import inf
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from trainflat.engines.openvino import unobserved
from trainflat.errors import InputError
from trainflat.export.base import Source
from trainflat.export.openvino import OpenVino, converted, save


class OpenVinoInt8(OpenVino):
    """OpenVINO with int8 weights and activations whose ranges some real texts have shown.

    Lookup tables and the head are int8 too.

    Args:
        activations: ``static`` takes their ranges from ``samples`` texts, ``dynamic`` from what comes at run time.
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
        """Two files, ``model.xml`` and ``model.bin``.

        Raises:
            InputError: no texts came with the model.
        """
        texts = [{name: row[name].numpy() for name in source.inputs} for row in source.texts[: self.samples]]
        if self.activations == "static" and not texts:
            raise InputError("openvino-int8 takes ranges from texts, and got none. Use activations=dynamic.")
        model = converted(source)
        with unobserved(), _quiet():
            import nncf

            if self.activations == "dynamic":  # of equal speed, asymmetric weights were nearer to the model
                model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
            else:
                dataset, kind = nncf.Dataset(texts), nncf.ModelType.TRANSFORMER
                model = nncf.quantize(model, dataset, subset_size=len(texts), model_type=kind)
        save(model, folder / self.file)


@contextmanager
def _quiet() -> Iterator[None]:
    """nncf prints bars, and what it is about to do."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import nncf

        nncf.set_log_level(logging.ERROR)
        yield
