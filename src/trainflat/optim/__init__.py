"""Lists the optimizers: flat ones, which choose where the gradient of a step is taken, and plain bases."""

from trainflat.optim.adam import Adam, AdamW
from trainflat.optim.asam import ASAM
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.cram import CrAM
from trainflat.optim.entropy_sgd import EntropySGD
from trainflat.optim.esam import ESAM
from trainflat.optim.extrapolated import ExtrapolatedGradient
from trainflat.optim.fisher_ssam import FisherSSAM
from trainflat.optim.friendlysam import FriendlySAM
from trainflat.optim.gsam import GSAM
from trainflat.optim.l1 import L1Penalty
from trainflat.optim.label_noise import LabelNoise
from trainflat.optim.looksam import LookSAM
from trainflat.optim.msam import MSAM
from trainflat.optim.options import OptimizerSettings, OptimizerTable
from trainflat.optim.perturbation import Move, Perturbation
from trainflat.optim.s2sam import S2SAM
from trainflat.optim.sam import SAM

OPTIMIZERS: OptimizerTable = OptimizerTable(
    "optimizer",
    given={"params", "base_optimizer"},
    adam=Adam,
    adamw=AdamW,
    sam=SAM,
    asam=ASAM,
    looksam=LookSAM,
    esam=ESAM,
    fisher_ssam=FisherSSAM,
    gsam=GSAM,
    friendlysam=FriendlySAM,
    msam=MSAM,
    s2sam=S2SAM,
    cram=CrAM,
    extrapolated=ExtrapolatedGradient,
    entropy_sgd=EntropySGD,
    label_noise=LabelNoise,
    l1=L1Penalty,
)

__all__ = [
    "ASAM",
    "ESAM",
    "GSAM",
    "MSAM",
    "OPTIMIZERS",
    "S2SAM",
    "SAM",
    "Adam",
    "AdamW",
    "CrAM",
    "EntropySGD",
    "ExtrapolatedGradient",
    "FisherSSAM",
    "FlatOptimizer",
    "FriendlySAM",
    "L1Penalty",
    "LabelNoise",
    "LookSAM",
    "Move",
    "OptimizerSettings",
    "Perturbation",
]
