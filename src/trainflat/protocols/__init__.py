"""Protocols decide in which order and how often a model is trained and pruned."""

from collections.abc import Mapping
from typing import Any

from trainflat.core.registry import Registry
from trainflat.core.settings import Settings
from trainflat.protocols.base import Protocol
from trainflat.protocols.dense import Dense
from trainflat.protocols.gradual import Gradual
from trainflat.protocols.iterative import Iterative
from trainflat.protocols.learned_structure import LearnedStructure
from trainflat.protocols.one_shot import OneShot
from trainflat.protocols.post_training import PostTraining
from trainflat.protocols.stages import Planned, Produced
from trainflat.protocols.store import StageStore
from trainflat.protocols.structured import Structured
from trainflat.protocols.ticket import Ticket
from trainflat.protocols.transfer import Transfer
from trainflat.protocols.workspace import Workspace

_LEARNED: Registry[Protocol] = Registry("protocol", structured=LearnedStructure)


class ProtocolTable(Registry[Protocol]):
    """Maps names to protocols; ``structured`` with a ``method`` is :class:`LearnedStructure`.

    Example:
        >>> PROTOCOLS.read({"name": "structured", "method": "cofi"}).member.__name__
        'LearnedStructure'
    """

    def kind_of(self, name: str, options: Mapping[str, Any]) -> type[Settings]:
        learned = name in _LEARNED and "method" in options
        return _LEARNED.settings(name) if learned else super().kind_of(name, options)


PROTOCOLS: Registry[Protocol] = ProtocolTable(
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
    "LearnedStructure",
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
