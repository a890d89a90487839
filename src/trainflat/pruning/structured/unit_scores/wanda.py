"""Activation times weight (Wanda: Sun et al., ICLR 2024, arXiv:2306.11695), for whole units."""

from trainflat.pruning.structured.moments import Moments
from trainflat.pruning.structured.unit_scores.base import Ranking, UnitInputs, UnitScore


class WandaUnits(UnitScore):
    r"""Scores a unit by the part of the sub-layer's output that is its own, if units are not correlated.

    .. math:: s_i = \sum_{c \in i} E[x_c^2] \, \|W_{:,c}\|^2 / E \|W x - E\,W x\|^2

    over a unit's columns c; a feed-forward unit has one, a head as many as its values. Departs from the paper, which
    ranks single weights by :math:`\|x_c\| |W_{jc}|`: squares add up to the error of the output, and relative to the
    output's own spread they can be compared between sub-layers, as ZipLM does. No labels and no gradients.
    """

    def rankings(self, inputs: UnitInputs) -> list[Ranking]:
        found = []
        for station in inputs.stations():
            moments = Moments.of(station.seen())
            weight = station.sub.matrix(inputs.model).weight.detach().double()
            spread = ((weight @ moments.centred().inputs) * weight).sum().clamp_min(1e-30)  # 0 if nothing varies
            scores = moments.inputs.diagonal() * weight.square().sum(0) / spread
            found.append(Ranking.by(scores.view(-1, station.sub.width).sum(1)))
        return found
