"""Lists what a recipe or a command can name, read from the sources, since importing them takes seconds."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from trainflat.core.errors import UnknownName

_ROOT = Path(str(files("trainflat")))
# By the word that `trainflat list` takes: the title, the file with the table, and the table's name in it.
_FAMILIES = {
    "tasks": ("tasks", "tasks/__init__.py", "TASKS"),
    "optimizers": ("optimizers", "optim/__init__.py", "OPTIMIZERS"),
    "averaging": ("averaging", "averaging/__init__.py", "AVERAGING"),
    "pruners": ("pruners", "pruning/__init__.py", "PRUNERS"),
    "gates": ("gates", "pruning/gates/__init__.py", "GATES"),
    "unit-scores": ("scores of heads and units", "pruning/structured/unit_scores/__init__.py", "UNIT_SCORES"),
    "repairs": ("repairs after structured pruning", "pruning/structured/repairs/__init__.py", "REPAIRS"),
    "protocols": ("protocols", "protocols/__init__.py", "PROTOCOLS"),
    "measures": ("measures of sharpness", "sharpness/__init__.py", "MEASURES"),
    "quantization": ("quantization-aware training", "quantization/__init__.py", "QUANTIZERS"),
    "reparametrizations": ("reparametrizations", "reparametrization/__init__.py", "REPARAMETRIZATIONS"),
    "formats": (
        "export formats (and backends of bench, all but sparse, beside torch)",
        "export/__init__.py",
        "EXPORTERS",
    ),
    "models": ("models", "models/locate.py", "MODELS"),
    "suites": ("suites of behavioural tests", "evaluation/checklist/suites.py", "SUITES"),
}
KINDS = (*_FAMILIES, "recipes")
_ANY_MODEL = "any encoder that transformers' Auto classes load, by hub name or folder"


def packaged_recipes() -> dict[str, Path]:
    """Lists the packaged recipes, by the name that ``trainflat run`` takes."""
    root = _ROOT / "recipes"
    return {str(p.relative_to(root).with_suffix("")): p for p in sorted(root.rglob("*.yaml"))}


def listed(kind: str) -> tuple[str, dict[str, str]]:
    """Returns the title of a kind, and its members with one sentence each.

    Raises:
        UnknownName: there is no such kind.

    Example:
        >>> listed("averaging")[1]["swa"]
        'Equal average of the checkpoints of the last part of training.'
    """
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    if kind == "recipes":
        return kind, {name: _headline(path) for name, path in packaged_recipes().items()}
    members = {name: _summary(path, called) for name, path, called in _members(kind)}
    return _FAMILIES[kind][0], members | ({"": _ANY_MODEL} if kind == "models" else {})


@cache
def option_defaults(kind: str) -> dict[str, dict[str, Any]]:
    """Returns the options of every member of a kind, annotated attributes of its class, with their defaults.

    Example:
        >>> option_defaults("optimizers")["msam"]
        {'rho': 0.3, 'exclude': ()}
    """
    found = {name: _attributes(path, called) for name, path, called in _members(kind)}
    return {
        name: {key: ast.literal_eval(one.value) for key, one in attributes.items() if one.value and _is_option(one)}
        for name, attributes in found.items()
    }


def _is_option(attribute: ast.AnnAssign) -> bool:
    """Returns whether an annotation carries a check: ``Annotated[...]``, or a name for one, such as ``Radius``."""
    text = ast.unparse(attribute.annotation)
    return text.startswith("Annotated[") or (text.isidentifier() and text[0].isupper())


def _attributes(path: Path, name: str) -> dict[str, ast.AnnAssign]:
    """Returns the annotated attributes with a value of a class, and those that it inherits within the package."""
    tree = _parse(path)
    found: dict[str, ast.AnnAssign] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            homes = _homes(tree)
            for base in map(ast.unparse, node.bases):
                if homes.get(base, "").startswith("trainflat."):
                    found |= _attributes(_file(homes[base]), base)
            own = (one for one in node.body if isinstance(one, ast.AnnAssign) and one.value is not None)
            found |= {ast.unparse(one.target): one for one in own}
    return found


def _homes(tree: ast.Module) -> dict[str, str]:
    """Returns the module of each name that is imported."""
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}


def _members(kind: str) -> Iterator[tuple[str, Path, str]]:
    """Yields each name in a table, a call of ``Registry`` or a dictionary, with the file and the name of its member."""
    # An import of optim or pruning imports torch; `trainflat list` and `--help` have half a second.
    _, file, table = _FAMILIES[kind]
    path = _ROOT / file
    tree = _parse(path)
    homes = _homes(tree)
    value = next(
        node.value for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table
    )
    if isinstance(value, ast.Dict):
        rows = [(str(ast.literal_eval(key)), item) for key, item in zip(value.keys, value.values, strict=True) if key]
    else:
        assert isinstance(value, ast.Call)
        rows = [(str(k.arg).replace("_", "-"), k.value) for k in value.keywords if k.arg not in ("given", "short")]
    for name, member in rows:
        called = ast.unparse(member)
        yield name, _file(homes[called]) if called in homes else path, called


def _summary(path: Path, name: str) -> str:
    """Returns the first line of the docstring of a class or function."""
    for node in _parse(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n", maxsplit=1)[0]
    return ""


def _file(module: str) -> Path:
    inside = Path(*module.split(".")[1:])
    return _ROOT / inside / "__init__.py" if (_ROOT / inside).is_dir() else _ROOT / inside.with_suffix(".py")


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _headline(path: Path) -> str:
    with path.open(encoding="utf8") as file:
        return file.readline().strip().lstrip("# ")
