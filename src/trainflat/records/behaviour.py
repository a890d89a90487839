"""How a model behaves beside its score: answers in common with another model, and behavioural tests that it fails."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainflat.records.base import Data, added_later

Base = Literal["e", 2]  # of the logarithm in a probability loyalty
TestType = Literal["MFT", "INV", "DIR"]  # minimum functionality, invariance, direction
Bits = Annotated[str, Field(pattern="^([0-9a-f]{2})*$")]  # one per case, see `pack`


class Loyalty(Data):
    """How alike the answers of a model and of the one that it is compared with are, on the main split."""

    to: str  # "dense", the run's own first stage, or another model as the recipe names it
    base: Base | None = None  # None where answers have no probabilities
    # In percent, by name: "label" and "probability" of classes; "pearson" and "spearman" of numbers; "exact_match" and
    # "f1" of spans.
    scores: dict[str, float]


class SuiteTest(Data):
    """Which of a test's cases a model failed, so that two models are compared case by case."""

    name: str
    capability: str  # "Negation"
    type: TestType
    cases: int  # that were drawn
    failed: Bits
    left_out: Bits = added_later("")  # which do not apply to this model's answers; "" for none

    @model_validator(mode="after")
    def _one_bit_per_case(self) -> Self:
        for bits in filter(None, (self.failed, self.left_out)):
            if len(bits) != 2 * -(-self.cases // 8):
                raise ValueError(f"a test of {self.cases} cases has {4 * len(bits)} bits")
        return self

    @property
    def failures(self) -> list[bool | None]:
        """Returns whether each case failed, in the order of the suite; None where it does not apply."""
        failed, left_out = unpack(self.failed, self.cases), unpack(self.left_out, self.cases)
        return [None if out else fail for fail, out in zip(failed, left_out, strict=True)]


class Checklist(Data):
    """What a model did on a suite of behavioural tests."""

    suite: str  # as its file calls it
    sha256: str  # of the suite's cases
    most: int  # cases per test that were drawn at most
    seed: int  # of the draw
    tests: list[SuiteTest]


def pack(flags: Sequence[bool]) -> str:
    """Writes one bit per flag as hexadecimal digits, padded with zeros to whole bytes.

    Example:
        >>> pack([True, False, True]), pack([]), unpack("a0", 3)
        ('a0', '', [True, False, True])
    """
    padded = [*flags, *[False] * (-len(flags) % 8)]
    return bytes(int("".join("01"[bit] for bit in padded[i : i + 8]), 2) for i in range(0, len(padded), 8)).hex()


def unpack(bits: str, count: int) -> list[bool]:
    """Reads what :func:`pack` wrote of ``count`` flags; no digits stand for no flag that is set."""
    read = "".join(f"{byte:08b}" for byte in bytes.fromhex(bits))
    return [bit == "1" for bit in read[:count].ljust(count, "0")]
