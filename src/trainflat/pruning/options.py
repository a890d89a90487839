"""Types of the options of scores, pruners and gates, with what their values must be."""

from typing import Annotated, Literal, get_args

from trainflat.core.settings import Number, Truth, Word

Scope = Literal["global", "layer"]
"""Whether entries compete with all others or within their tensor."""

Perturb = Literal["weights", "scores", "both", "none"]


SHARE = Number("is the share of weights to drop, in [0, 1)", lambda x: 0 <= x < 1)
SCOPE = Word(get_args(Scope))
SparsityOption = Annotated[float, SHARE]
ScopeOption = Annotated[Scope, SCOPE]
STEPS = Number("is a whole number of optimizer steps, at least 1", lambda x: x >= 1, whole=True)
Steps = Annotated[int, STEPS]
RowCount = Annotated[int, Number("of a pruner is a number of training rows, at least 1", lambda x: x >= 1, whole=True)]
Temperature = Annotated[float, Number("of the logits is a number above 0", lambda x: x > 0)]
Decay = Annotated[float, Number("is the share that an average keeps of itself, in [0, 1)", lambda x: 0 <= x < 1)]
NON_NEGATIVE = Number("is a number, at least 0", lambda x: x >= 0)
TrueOrFalse = Annotated[bool, Truth()]
