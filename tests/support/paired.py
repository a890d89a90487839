"""Records of two optimizers over seeds that hold what rows tell, for tests of paired differences."""

import math
from collections.abc import Sequence
from typing import Any

from tests.support.records import make_record
from trainflat.core.margins import GROUPS
from trainflat.records.run import Record

SAM = {"name": "sam", "base": "adamw", "lr": 2e-5, "rho": 0.05}


def with_rows(record: Record, spread: float = 0.1) -> Record:
    """The same, as of today: with the score without each group of rows."""
    stages = [
        stage.model_copy(
            update={
                "without": [record.score(stage) + spread * math.sin(k * len(record.optimizer)) for k in range(GROUPS)]
            }
        )
        for stage in record.stages
    ]
    return record.model_copy(update={"stages": stages}).sealed()


def runs(seeds: Sequence[int], gain: float = 0.0, **changes: Any) -> list[Record]:
    return [
        with_rows(make_record(optimizer=optimizer, seed=seed, best=best, **changes))
        for optimizer, best in ((None, 88.0), (SAM, 88.0 + gain))
        for seed in seeds
    ]
