"""Features: all that joins a training beside the loop, each in one file and one line of the table."""

from trainflat.training.features.averaging import AveragingFeature
from trainflat.training.features.base import ADDED, Feature, Features, Run
from trainflat.training.features.distillation import DistillationFeature
from trainflat.training.features.divergence_guard import DivergenceGuard
from trainflat.training.features.frozen_embeddings import FrozenEmbeddings
from trainflat.training.features.gate import GateFeature
from trainflat.training.features.layerwise import LayerwiseFeature
from trainflat.training.features.masks import MasksFeature
from trainflat.training.features.quantization import QuantizationFeature
from trainflat.training.features.reparametrization import ReparametrizationFeature
from trainflat.training.features.self_teacher import SelfTeacher
from trainflat.training.features.snapshot import Snapshot

# By recipe key, in the order of nesting: the average stands in for the weights, and is then gated. Quantizers are on
# the model before anything reads it, θ is made of weights that a gate has pruned, a snapshot sees the finished step.
FEATURES: dict[str, type[Feature]] = {
    "freeze_embeddings": FrozenEmbeddings,
    "masks": MasksFeature,
    "quantization": QuantizationFeature,
    "averaging": AveragingFeature,
    "gate": GateFeature,
    "reparametrization": ReparametrizationFeature,
    "distillation": DistillationFeature,
    "layerwise": LayerwiseFeature,
    "self_teaching": SelfTeacher,
    "divergence_guard": DivergenceGuard,
    "snapshot": Snapshot,
}

__all__ = ["ADDED", "FEATURES", "Feature", "Features", "Run"]
