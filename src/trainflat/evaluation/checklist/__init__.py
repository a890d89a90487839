"""Behavioural tests after CheckList (Ribeiro, Wu, Guestrin, Singh, ACL 2020, arXiv:2005.04118)."""

from collections.abc import Sequence

from trainflat.evaluation.checklist.expectations import EXPECTATIONS, Answers, Expectation
from trainflat.evaluation.checklist.questions import Questions, check_task, with_neutral
from trainflat.evaluation.checklist.suites import SUITES, Case, Suite, read_suite
from trainflat.records.behaviour import SuiteTest, pack

__all__ = [
    "EXPECTATIONS",
    "SUITES",
    "Answers",
    "Case",
    "Expectation",
    "Questions",
    "Suite",
    "check_task",
    "judge",
    "read_suite",
    "with_neutral",
]


def judge(cases: Sequence[Case], answers: Sequence[Answers]) -> list[SuiteTest]:
    """Judges a model's answers to cases, test by test in the order of the cases."""
    passed: dict[str, list[bool | None]] = {}
    first: dict[str, Case] = {}
    for case, given in zip(cases, answers, strict=True):
        first.setdefault(case.test, case)
        found = EXPECTATIONS[case.expect].judge(given, case.labels or (), case.changes or ())
        passed.setdefault(case.test, []).append(found)
    return [
        SuiteTest(
            name=name,
            capability=first[name].capability,
            type=first[name].type,
            cases=len(found),
            failed=pack([one is False for one in found]),
            left_out=pack([one is None for one in found]) if None in found else "",
        )
        for name, found in passed.items()
    ]
