"""An architecture: BERT by another name."""

from dataclasses import replace

from trainflat.anatomy.bert import BERT

TOY = replace(BERT, family="Toy")
