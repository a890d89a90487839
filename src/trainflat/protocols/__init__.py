"""Protocols: in which order and how often a model is trained and pruned."""

from trainflat.core.registry import Registry
from trainflat.protocols.base import Planned, Produced, Protocol
from trainflat.protocols.bench import Bench
from trainflat.protocols.dense import Dense
from trainflat.protocols.gradual import Gradual
from trainflat.protocols.iterative import Iterative
from trainflat.protocols.one_shot import OneShot
from trainflat.protocols.ticket import Ticket

PROTOCOLS: Registry[Protocol] = Registry(
    "protocol", dense=Dense, one_shot=OneShot, iterative=Iterative, ticket=Ticket, gradual=Gradual
)

__all__ = [
    "PROTOCOLS",
    "Bench",
    "Dense",
    "Gradual",
    "Iterative",
    "OneShot",
    "Planned",
    "Produced",
    "Protocol",
    "Ticket",
]
