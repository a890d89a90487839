"""Trackers that the Trainer also reports to."""

from collections.abc import Sequence

from trainflat.errors import InputError, UnknownName

# What pip calls them, where that is not their name.
_PACKAGES = {
    "tensorboard": '"trainflat[tracking]"',
    "azure_ml": "azureml-sdk",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub mlflow",
    "flyte": "flytekit",
}
_WORDS = (["all"], ["none"])  # whatever is installed; nothing


def check_names(names: Sequence[str]) -> None:
    """They are trackers that ``transformers`` knows.

    Raises:
        UnknownName: the first that is not.
    """
    if not names or list(names) in _WORDS:
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UnknownName("tracker", name, INTEGRATION_TO_CALLBACK)


def check_installed(names: Sequence[str]) -> None:
    """They can be used on this machine.

    Raises:
        InputError: the first that cannot, what it says, and what to install.
    """
    if not names or list(names) in _WORDS:
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except Exception as error:  # each package refuses in its own way
            reason = str(error).split("\n", maxsplit=1)[0].split(". ")[0].rstrip(".")
            raise InputError(
                f"training.report_to: {name} cannot be used here ({reason}). "
                f"Run: pip install {_PACKAGES.get(name, name)}, or leave it out."
            ) from error
