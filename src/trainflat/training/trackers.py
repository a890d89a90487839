"""Checks the trackers that the Trainer reports to."""

from collections.abc import Sequence

from trainflat.core.errors import InputError, UnknownName

# What pip calls them, where that is not their name.
_PACKAGES = {
    "tensorboard": '"trainflat[tracking]"',
    "azure_ml": "azureml-sdk",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub mlflow",
    "flyte": "flytekit",
}
_MOVES = {"kubeflow": "Set KUBEFLOW_TRAINER_SERVER_URL"}  # where installing does not help
# What transformers calls them where it looks for them.
_CALLED = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}
_WORDS = (["all"], ["none"])  # whatever is installed; nothing


def check_names(names: Sequence[str]) -> None:
    """Checks that ``transformers`` knows the trackers.

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
    """Checks that the trackers are installed and set up here.

    Raises:
        InputError: the first that cannot, and what to do.
    """
    if not names or list(names) in _WORDS:
        return
    from transformers.integrations import integration_utils

    for name in names:
        # Not by making its callback: some measure as soon as they are made, some complain when they are thrown away.
        if not getattr(integration_utils, f"is_{_CALLED.get(name, name)}_available")():
            move = _MOVES.get(name, f"Run: pip install {_PACKAGES.get(name, name)}")
            raise InputError(
                f"training.report_to: {name} cannot be used here (transformers finds it not installed or not set up). "
                f"{move}, or leave it out."
            )
