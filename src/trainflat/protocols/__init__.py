"""Protocols decide in which order and how often a model is trained and pruned."""

from trainflat.core.registry import Registry
from trainflat.protocols.base import Protocol
from trainflat.protocols.dense import Dense
from trainflat.protocols.gradual import Gradual
from trainflat.protocols.iterative import Iterative
from trainflat.protocols.one_shot import OneShot
from trainflat.protocols.post_training import PostTraining
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.store import StageStore
from trainflat.protocols.structured import Structured
from trainflat.protocols.ticket import Ticket
from trainflat.protocols.transfer import Transfer
from trainflat.protocols.workspace import Workspace

PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    dense=Dense,
    one_shot=OneShot,
    iterative=Iterative,
    ticket=Ticket,
    gradual=Gradual,
    transfer=Transfer,
    post_training=PostTraining,
    structured=Structured,
)

__all__ = [
    "PROTOCOLS",
    "Dense",
    "Gradual",
    "Iterative",
    "OneShot",
    "Planned",
    "PostTraining",
    "Produced",
    "Protocol",
    "StageStore",
    "Structured",
    "Ticket",
    "Transfer",
    "Workspace",
]
