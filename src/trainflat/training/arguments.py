"""The Trainer's arguments, and those that a flat optimizer adds."""

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class FlatArguments(TrainingArguments):  # type: ignore[misc]
    """``transformers.TrainingArguments`` and how a flat optimizer's two passes meet accumulation and data parallel.

    Attributes:
        perturb_over: ``"window"``: perturb once per step by the gradient of the whole accumulation window, so that 2
            × 16 rows take the same step as 1 × 32. ``"micro-batch"``: perturb for each micro-batch by its own
            gradient.
        sync_perturbation: Under data parallel, perturb by the gradient of all processes. Otherwise each process
            perturbs by its own gradient (m-sharpness, Foret et al. 2021, section 3), and the first pass needs no
            communication.
        length_grouped: Batches of rows of one length, in an order that resumes exactly. Lengths are the training set's
            attribute ``lengths``, else those of its ``input_ids``; a set without either keeps the Trainer's order.
    """

    perturb_over: str = field(default="window")
    sync_perturbation: bool = field(default=False)
    length_grouped: bool = field(default=True)
