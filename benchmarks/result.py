"""What a benchmark leaves: a table for the reader, and small JSON under ``results/benchmarks`` for the reports."""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import QUIET, REPEATS, Sample, Spread, ratio, readable, seconds, spread
from trainflat.core.files import write_json
from trainflat.records.run import package_version, processor

PACKAGES = ("trainflat", "torch", "transformers", "numpy", "pytorch_optimizer")


def options(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="rounds; claims are made from 7 or more")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch; all cores if not given"
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the JSON file")
    return parser


@dataclass(frozen=True)
class Bound:
    """A claim with the limit it must keep."""

    claim: str
    value: float
    relation: str  # "<=" or ">="
    limit: float
    unit: str

    @property
    def kept(self) -> bool:
        """Whether the measured value keeps the limit."""
        return self.value <= self.limit if self.relation == "<=" else self.value >= self.limit

    def __str__(self) -> str:
        verdict = "kept  " if self.kept else "MISSED"
        sign = {"<=": "≤", ">=": "≥"}[self.relation]
        return f"{verdict} {self.claim}: {self.value:.3g}{self.unit} {sign} {self.limit:g}{self.unit}"


@dataclass
class Result:
    """Everything one benchmark found. Add as it comes, then ``finish``."""

    name: str
    what: str  # how it was measured, in sentences
    settings: argparse.Namespace
    times: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    ratios: dict[str, Spread] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)  # any other number; the name tells the unit
    bounds: list[Bound] = field(default_factory=list)

    def add(self, group: str, taken: dict[str, list[Sample]]) -> None:
        """Times of candidates that alternated."""
        self.times[group] = taken

    def ratio(
        self, group: str, over: str, under: str, *, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        """How many times as long ``over`` takes as ``under``, and the bound on that if there is one."""
        claim = f"{group}: {over} / {under}"
        found = ratio(seconds(self.times[group][over]), seconds(self.times[group][under]))
        self.ratios[claim] = found
        self._bound(claim, found.value, "×", at_most, at_least)

    def figure(self, claim: str, value: float, unit: str, *, at_most: float | None = None) -> None:
        """A number that is no ratio of times."""
        self.figures[f"{claim} [{unit}]"] = value
        self._bound(claim, value, f" {unit}", at_most, None)

    def _bound(self, claim: str, value: float, unit: str, at_most: float | None, at_least: float | None) -> None:
        if at_most is not None:
            self.bounds.append(Bound(claim, value, "<=", at_most, unit))
        if at_least is not None:
            self.bounds.append(Bound(claim, value, ">=", at_least, unit))

    def finish(self) -> Path:
        """Prints the table and writes the file, whole or not at all."""
        print(self.table(), flush=True)
        path: Path = self.settings.out / f"{self.name}.json"
        write_json(path, self.as_json())
        print(f"  written to {path}\n", flush=True)
        return path

    def table(self) -> str:
        """Times, ratios and bounds as text."""
        lines = [f"\n{self.name}"]
        for group, taken in self.times.items():
            lines += [f"  {group}", *(f"    {name:42} {_times(samples)}" for name, samples in taken.items())]
        lines += [f"  {claim:76} {r.value:7.3g} [{r.low:.3g}, {r.high:.3g}]" for claim, r in self.ratios.items()]
        lines += [f"  {claim:76} {value:7.4g}" for claim, value in self.figures.items()]
        return "\n".join([*lines, *(f"  {bound}" for bound in self.bounds)])

    def as_json(self) -> dict[str, Any]:
        """The file's content; seconds throughout, six digits."""
        return {
            "benchmark": self.name,
            "what": " ".join(self.what.split()),
            "command": command(self.name, sys.argv[1:]),
            "taken": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(self.settings.threads),
            "quiet_cores": QUIET,
            "times": {
                group: {name: _summary(samples) for name, samples in taken.items()}
                for group, taken in self.times.items()
            },
            "ratios": {claim: {key: _short(v) for key, v in asdict(r).items()} for claim, r in self.ratios.items()},
            "figures": {claim: _short(value) for claim, value in self.figures.items()},
            "bounds": [asdict(bound) | {"value": _short(bound.value), "kept": bound.kept} for bound in self.bounds],
        }


def command(name: str, arguments: Sequence[str]) -> str:
    """What to type to measure again."""
    return " ".join(["python", "-m", f"benchmarks.{name}", *arguments])


def machine(threads: int) -> dict[str, Any]:
    """What the times depend on besides the code."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
        "threads": threads,
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _summary(samples: Sequence[Sample]) -> dict[str, Any]:
    middle = spread(seconds(samples))
    return {
        "median": _short(middle.value),
        "low": _short(middle.low),
        "high": _short(middle.high),
        "samples": [_short(sample.seconds) for sample in samples],
        "foreign_cores": round(spread([sample.foreign for sample in samples]).value, 3),
        "noisy": sum(sample.noisy for sample in samples),
        "retaken": sum(sample.tries - 1 for sample in samples),
    }


def _times(samples: Sequence[Sample]) -> str:
    middle = spread(seconds(samples))
    noisy = sum(sample.noisy for sample in samples)
    text = f"{readable(middle.value):>9} [{readable(middle.low)}, {readable(middle.high)}] n={len(samples)}"
    return text + (f", {noisy} of them noisy" if noisy else "")


def _short(value: float) -> float:
    return float(f"{value:.6g}")
