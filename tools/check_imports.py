"""Holds the floors: an import in the package points down only, and modules of one floor never import each other.

A module here is what stands directly in the package: ``errors.py``, or a family's folder with all its files, which know
each other. Every import statement counts, also one in a function or under ``TYPE_CHECKING``: a name that is needed
for types alone ties two modules together just as well. So does ``import_module`` with a literal name.

Run as ``python tools/check_imports.py [PACKAGE_FOLDER]``; exits 1 and prints ``file:line`` for each import that
breaks a rule.
"""

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Between two floors stand `untrusted`, by which `files` reads; `files`, through which the record is written;
# `diagnosis` and `comparison`, which hold parts of it; and `objective`, on which measures of sharpness and scores of
# pruning are taken.
FLOORS: dict[str, float] = {
    **dict.fromkeys(("cli", "registration"), 11),
    **dict.fromkeys(("grid", "terminal", "plans", "bench"), 10),
    **dict.fromkeys(("pipeline", "diagnose", "exporting"), 9),
    "recipe": 8,
    **dict.fromkeys(("protocols", "loading"), 7),
    **dict.fromkeys(("training", "evaluation", "export", "report"), 6),
    "models": 5,
    **dict.fromkeys(("tasks", "engines"), 4),
    **dict.fromkeys(("diagnosis", "comparison", "objective"), 2.5),
    **dict.fromkeys(("optim", "averaging", "pruning", "quantization", "distillation", "sharpness"), 3),
    "reparametrization": 3,
    **dict.fromkeys(("registry", "params", "anatomy", "schedules", "record", "landscapes", "listing"), 2),
    **dict.fromkeys(("hub", "unfinished"), 2),
    "heads": 2.2,
    **dict.fromkeys(("foreach", "tensors", "progress", "processes", "yaml_values", "positions"), 2),
    **dict.fromkeys(("files", "timing", "margins"), 1.5),
    "untrusted": 1.25,
    **dict.fromkeys(("errors", "wording", "private_names"), 1),
}
ROOT = 12  # the package's own __init__ and __main__ offer what all floors hold; no module below may lean on them

# What a module may import from outside the standard library and the package; modules that are not named are free.
OUTSIDE: dict[str, frozenset[str]] = {
    name: frozenset() if floor == 1 else frozenset({"torch", "numpy", "scipy"})
    for name, floor in FLOORS.items()
    if floor in (1, 3) or name == "objective"
}
OUTSIDE["quantization"] |= {"torchao"}  # an optional backend, imported when it is asked for
NO_TORCH = "report"  # a report is drawn where nothing can be trained
TRAINER_USER = "training"  # the seam to transformers.Trainer
TRAINER_MODULES = ("transformers.trainer", "transformers.training_args")
TRAINER_NAMES = ("Trainer", "TrainingArguments", "Seq2SeqTrain")  # how the names begin


@dataclass(frozen=True)
class Import:
    """One name that a file imports."""

    target: str  # absolute and dotted; for `from a import b` that is a.b
    line: int
    at_import: bool  # runs as soon as the file is imported: not in a function, not for the type checker alone


@dataclass
class Source:
    """One file of the package with what it imports."""

    path: Path
    name: str  # dotted, "trainflat.pruning.cut"
    imports: list[Import] = field(default_factory=list)

    def unit(self) -> str:
        """The module in the sense of the floors; "" for the package itself."""
        part = self.name.split(".")[1:2]
        return "" if part in ([], ["__main__"]) else part[0]


def read_package(folder: Path) -> dict[str, Source]:
    """Every file of a package by its dotted name."""
    sources = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text(encoding="utf8"), str(path))
        sources[name] = Source(path, name, list(_imports(tree, name if is_package else name.rpartition(".")[0])))
    return sources


def _imports(node: ast.AST, package: str, at_import: bool = True) -> Iterator[Import]:
    """Imports below a syntax node; ``package`` is what relative imports count from."""
    for target in _targets(node, package):
        yield Import(target, getattr(node, "lineno", 0), at_import)
    later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _is_for_types(node)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, package, at_import and not later)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _targets(node: ast.AST, package: str) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = ".".join(package.split(".")[: len(package.split(".")) - level + 1]) if level else ""
            whole = ".".join(part for part in (base, module) if part)
            return [f"{whole}.{name.name}" for name in names]
        case ast.Call(
            func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
        case ast.Attribute(value=ast.Name(id="transformers"), attr=attribute):
            return [f"transformers.{attribute}"]
    return []


def check(folder: Path) -> list[str]:
    """Every broken rule as ``file:line: what``, in order of files."""
    sources = read_package(folder)
    found = [f"{folder}: the folder holds no Python file, so nothing was checked."] if not sources else []
    for source in sources.values():
        if source.unit() not in FLOORS and source.unit():
            found.append(f"{source.path}:1: {source.unit()} has no floor; add it to FLOORS in {Path(__file__).name}.")
            continue
        for item in source.imports:
            found += [f"{source.path}:{item.line}: {text}" for text in _broken(source, item, folder.name)]
    return found + _torch_below(sources, folder.name)


def _broken(source: Source, item: Import, package: str) -> Iterator[str]:
    here, (top, *rest) = source.unit(), item.target.split(".")
    if top != package:
        yield from _broken_outside(here, item.target)
        return
    there = rest[0] if rest and rest[0] in FLOORS else ""
    mine, its = FLOORS.get(here, ROOT), FLOORS.get(there, ROOT)
    if here == there or its < mine:
        return
    name = there or f"{item.target} from the package itself"
    reason = "modules of one floor never import each other" if its == mine else "imports point down only"
    yield f"{here} (floor {mine:g}) imports {name} (floor {its:g}); {reason}."


def _broken_outside(here: str, target: str) -> Iterator[str]:
    top = target.split(".", maxsplit=1)[0]
    allowed = OUTSIDE.get(here)
    if allowed is not None and top not in allowed and top not in sys.stdlib_module_names:
        known = " and ".join(sorted(allowed)) or "nothing"
        yield f"{here} imports {target}; it may know {known} outside the standard library."
    if here != TRAINER_USER and _is_trainer(target):
        yield f"{here or 'the package itself'} imports {target}; only {TRAINER_USER} knows transformers.Trainer."


def _is_trainer(target: str) -> bool:
    top, _, name = target.partition(".")
    return top == "transformers" and (target.startswith(TRAINER_MODULES) or name.startswith(TRAINER_NAMES))


def _torch_below(sources: dict[str, Source], package: str) -> list[str]:
    """Ways from ``report`` to torch, over any number of our own files.

    On the way only what runs at import counts: the record may know how to save tensors, if reading it loads nothing.
    """
    found = []
    for source in sources.values():
        if source.unit() == NO_TORCH:
            for item in source.imports:
                way = _way_to_torch(item.target, sources, package, set())
                if way:
                    found.append(
                        f"{source.path}:{item.line}: {NO_TORCH} reaches torch: {' -> '.join([source.name, *way])}."
                    )
    return found


def _way_to_torch(target: str, sources: dict[str, Source], package: str, seen: set[str]) -> list[str]:
    """The chain of names from an import to torch; empty if there is none."""
    top, *rest = target.split(".")
    if top == "torch":
        return [target]
    if top != package:
        return []
    # Importing a.b.c runs a, a.b and a.b.c, as far as these are files and not names in one.
    for name in (".".join([top, *rest[:n]]) for n in range(len(rest) + 1)):
        if name in sources and name not in seen:
            seen.add(name)
            ways = (_way_to_torch(i.target, sources, package, seen) for i in sources[name].imports if i.at_import)
            if way := next(filter(None, ways), None):
                return [name, *way]
    return []


def main(arguments: list[str]) -> int:
    """Checks one package folder; the repository's own without an argument."""
    folder = Path(arguments[0] if arguments else os.path.relpath(Path(__file__).parents[1] / "src" / "trainflat"))
    found = check(folder)
    for line in found:
        print(line)
    print(f"{len(found)} imports break the floors." if found else "All imports point down the floors.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
