"""Scores: how much each weight matters. Each formula is written here once, for all pruners and gates."""

from trainflat.core.registry import Registry
from trainflat.pruning.scores.base import ObjectiveSource, Score, ScoreInputs
from trainflat.pruning.scores.gradient_flow import MeasuredScore, gradient_norm_change, loss_change
from trainflat.pruning.scores.gradient_norm import GradientNorm, Grasp
from trainflat.pruning.scores.layer_shuffled import LayerShuffled
from trainflat.pruning.scores.loss_preservation import LossPreservation, RunningLossPreservation
from trainflat.pruning.scores.magnitude import Magnitude
from trainflat.pruning.scores.observed import ObservedScore
from trainflat.pruning.scores.pins import SmoothedImportance
from trainflat.pruning.scores.random import Random

SCORES: Registry[Score] = Registry(
    "score",
    magnitude=Magnitude,
    random=Random,
    layer_shuffled=LayerShuffled,
    loss_preservation=LossPreservation,
    running_loss_preservation=RunningLossPreservation,
    grasp=Grasp,
    gradient_norm=GradientNorm,
    pins=SmoothedImportance,
)

__all__ = [
    "SCORES",
    "GradientNorm",
    "Grasp",
    "LayerShuffled",
    "LossPreservation",
    "Magnitude",
    "MeasuredScore",
    "ObjectiveSource",
    "ObservedScore",
    "Random",
    "RunningLossPreservation",
    "Score",
    "ScoreInputs",
    "SmoothedImportance",
    "gradient_norm_change",
    "loss_change",
]
