"""Gradual gradient-norm preservation (Lubana and Dick, ICLR 2021, arXiv:2009.11839)."""

from trainflat.pruning.gates.measured import MeasuredGate
from trainflat.pruning.gradient_norm import GradientNormPruner


class GradualGradientNorm(MeasuredGate):
    """Drops the weights whose removal changes the norm of the gradient least, by |θ·Hg|."""

    pruner = GradientNormPruner
