"""Lists the sections of a report, one file each; one that stands here is on the page and among the files."""

from trainflat.report.elements import Shown
from trainflat.report.sections.base import Results, Section
from trainflat.report.sections.behaviour import Behaviour
from trainflat.report.sections.comparisons import Comparisons
from trainflat.report.sections.costs import Costs
from trainflat.report.sections.curve import ScoreCurve
from trainflat.report.sections.eligible import Eligible
from trainflat.report.sections.flatness import Flatness
from trainflat.report.sections.frontier import SpeedFrontier
from trainflat.report.sections.int8 import Int8Scores
from trainflat.report.sections.landscapes import Landscapes
from trainflat.report.sections.layers import LayerMatches
from trainflat.report.sections.runs import Runs
from trainflat.report.sections.scores import Scores
from trainflat.report.sections.settings import Settings
from trainflat.report.sections.structure import StructureMap
from trainflat.report.sections.tradeoff import Tradeoff
from trainflat.report.sections.training import TrainingCurves
from trainflat.report.sections.transfer import TransferFrontier
from trainflat.report.sections.zeros import Zeros

# In the order in which they are shown.
SECTIONS: tuple[Section, ...] = (
    Tradeoff(),
    Scores(),
    Settings(),
    ScoreCurve(),
    Comparisons(),
    SpeedFrontier(),
    TransferFrontier(),
    Flatness(),
    Int8Scores(),
    Behaviour(),
    Zeros(),
    StructureMap(),
    Eligible(),
    LayerMatches(),
    TrainingCurves(),
    Landscapes(),
    Costs(),
    Runs(),
)


def show(results: Results) -> list[Shown]:
    """Returns what every section shows of some results, in order."""
    return [section.show(results) for section in SECTIONS]
