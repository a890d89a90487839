"""Recipes: what to train and compress, how, and what to measure. Checked to the last key before anything runs."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from trainflat.errors import InputError, UnknownName
from trainflat.files import hash_json
from trainflat.protocols import PROTOCOLS
from trainflat.registry import Registry
from trainflat.tasks import TASKS
from trainflat.training.options import TrainingOptions
from trainflat.yaml_values import parse_yaml

T = TypeVar("T")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelOptions(_Section):
    """Which encoder: ``minilm``, a hub name or a folder; ``layers`` keeps the first N."""

    name: Annotated[str, Field(min_length=1)]
    layers: Annotated[int, Field(ge=1)] | None = None


class LatencyOptions(_Section):
    """Shapes of which the forward pass is timed; no batches, no timing."""

    batches: list[Annotated[int, Field(ge=1)]] = [1, 32]
    lengths: list[Annotated[int, Field(ge=1)]] = [32, 128]
    repeats: Annotated[int, Field(ge=1)] = 7


class EvaluationOptions(_Section):
    """What is measured at every stage beside scores, sparsity and sizes."""

    latency: LatencyOptions = LatencyOptions()


class Recipe(_Section):
    """One run. ``task: cola`` is short for ``task: {name: cola}``; likewise for model and protocol."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    task: dict[str, Any]
    model: ModelOptions
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    training: TrainingOptions = TrainingOptions()
    protocol: dict[str, Any] = {"name": "dense"}
    evaluation: EvaluationOptions = EvaluationOptions()

    @field_validator("task", mode="before")
    @classmethod
    def _known_task(cls, value: Any) -> Any:
        return _member(TASKS, value)

    @field_validator("protocol", mode="before")
    @classmethod
    def _known_protocol(cls, value: Any) -> Any:
        checked = _member(PROTOCOLS, value)
        if isinstance(checked, dict):
            build(PROTOCOLS, checked)  # members check how their options fit together
        return checked

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def resolved(self) -> dict[str, Any]:
        """Every option with its value, as JSON: what ``recipe.yaml`` in the run's folder holds."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """SHA-256 of the resolved recipe; what is only reported elsewhere (``report_to``) does not count."""
        value = self.resolved()
        del value["training"]["report_to"]
        return hash_json(value)

    @property
    def folder_name(self) -> str:
        """``<name>-<first ten digits of the hash>``."""
        return f"{self.name}-{self.hash[:10]}"


def build(registry: Registry[T], section: Mapping[str, Any], **given: Any) -> T:
    """The member that a checked section names; what JSON writes as text, a path, is one again."""
    known = registry.options(section["name"])
    options = {k: TypeAdapter(known[k].annotation).validate_python(v) for k, v in section.items() if k != "name"}
    return registry.build(section["name"], **given, **options)


def packaged_recipes() -> dict[str, Path]:
    """Recipes that come with the package, by the name that ``trainflat run`` takes."""
    root = Path(str(files("trainflat") / "recipes"))
    return {str(p.relative_to(root).with_suffix("")): p for p in sorted(root.rglob("*.yaml"))}


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Reads and checks a recipe.

    Args:
        source: A file, the name of a packaged recipe, or the recipe itself.
        overrides: ``"training.epochs=2"`` as on the command line (values are YAML), or a mapping of such paths to
            values.

    Raises:
        InputError: names the path of the first key or value that does not fit, and the nearest name.
    """
    value, where = _read(source)
    items = overrides.items() if isinstance(overrides, Mapping) else map(_split_override, overrides)
    for path, new in items:
        _set(value, path, new)
    value = _copy(value, where)
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{where}: {_first_line(error)}") from error
    _refuse_truths(value, recipe.resolved(), where)
    return recipe


def _read(source: str | Path | Mapping[str, Any] | Recipe) -> tuple[dict[str, Any], str]:
    if isinstance(source, Recipe):
        return source.resolved(), "recipe"
    if isinstance(source, Mapping):
        return _copy(source, "recipe"), "recipe"
    packaged = packaged_recipes()
    path = packaged[str(source)] if str(source) in packaged and not Path(source).is_file() else Path(source)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") or str(source).split("/")[0] in (".", "..", ""):
            raise InputError(f"there is no recipe file {path}. `trainflat list` shows those of the package.")
        raise UnknownName("recipe", str(source), packaged)
    try:
        value = parse_yaml(path.read_text(encoding="utf8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # also what is not UTF-8
        raise InputError(f"{path} is not YAML: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no recipe: a mapping with at least task and model is expected.")
    return value, str(path)


def _split_override(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise InputError(f"--set takes key=value such as training.epochs=2, got {text!r}.")
    try:
        return path, parse_yaml(value)
    except ValueError as error:
        hint = f"Quote it for the shell: --set '{path}={value}'."
        raise InputError(f"--set {path}: {value!r} is not a YAML value. {hint}") from error


def _set(value: dict[str, Any], path: str, new: Any) -> None:
    *parents, last = path.split(".")
    here = value
    for key in parents:
        below = here.get(key)
        if below is None or isinstance(below, str):  # `task: cola` is short for `task: {name: cola}`
            below = {"name": below} if below else {}
        if not isinstance(below, dict):
            raise InputError(f"--set {path}: {key} holds {below!r}, which has no keys.")
        here[key] = below
        here = below
    here[last] = new


def _copy(value: Any, where: str) -> Any:
    """A deep copy, whose keys are words."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{where}: {key!r} is not a key of recipes, which are words.")
        return {key: _copy(item, where) for key, item in value.items()}
    return [_copy(item, where) for item in value] if isinstance(value, list | tuple) else value


def _refuse_truths(given: Any, read: Any, path: str) -> None:
    """`rows: true` would be read as 1."""
    if isinstance(given, bool) and not isinstance(read, bool):
        raise InputError(f"{path}: a number is expected, got {str(given).lower()}.")
    if isinstance(given, dict) and isinstance(read, dict):
        for key in given.keys() & read.keys():
            _refuse_truths(given[key], read[key], f"{path}: {key}" if ": " not in path else f"{path}.{key}")
    if isinstance(given, list) and isinstance(read, list):
        for one, other in zip(given, read, strict=False):
            _refuse_truths(one, other, path)


def _member(registry: Registry[Any], value: Any) -> Any:
    """A section that names a member: the name exists, its options too, their values are of the annotated types."""
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError(f"name a {registry.kind}: {', '.join(registry)}")
    known = registry.options(value["name"])
    checked = {"name": value["name"]}
    for key, given in value.items():
        if key == "name":
            continue
        if key not in known:
            raise UnknownName(f"option of {registry.kind} {value['name']!r}", key, known)
        try:
            typed: TypeAdapter[Any] = TypeAdapter(known[key].annotation)
            checked[key] = typed.dump_python(typed.validate_python(given), mode="json")
        except ValidationError as error:
            raise ValueError(f"{key}: {_wanted(error.errors())}, got {given!r}") from error
    missing = [key for key, parameter in known.items() if parameter.default is parameter.empty and key not in checked]
    if missing:
        raise ValueError(f"{registry.kind} {value['name']!r} needs {missing[0]}")
    left = {key: parameter for key, parameter in known.items() if key not in checked}
    return checked | {k: TypeAdapter(p.annotation).dump_python(p.default, mode="json") for k, p in left.items()}


def _first_line(error: ValidationError) -> str:
    errors = error.errors()
    first, path = errors[0], _path(errors[0]["loc"])
    where = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        known = _fields_at(path[:-1])
        near = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{where} is not a key of recipes.{hint} Known here: {', '.join(known)}."
    message = _wanted([e for e in errors if _path(e["loc"]) == path]).removeprefix(f"{where}.")
    told = first["type"] in ("missing", "value_error") or isinstance(first["input"], dict)
    shown = "" if told else f", got {first['input']!r}"
    return f"{where}: {message}{shown}".rstrip(".") + "."


def _wanted(errors: Sequence[Any]) -> str:
    """What pydantic says of one value; of a union it says it once per branch."""
    messages = [e["msg"].removeprefix("Value error, ").partition(" or instance of")[0] for e in errors]
    first, *others = (m.replace("a valid dictionary", "a mapping") for m in messages)
    return " or ".join([first, *(other.removeprefix("Input should be ") for other in others)])


def _path(location: Sequence[int | str]) -> list[int | str]:
    """The keys of a recipe that pydantic's location leads through, without the branch of a union at its end."""
    path: list[int | str] = []
    model: Any = Recipe
    for key in location:
        fields = getattr(model, "model_fields", None)
        if fields is None and isinstance(key, str):
            break
        path.append(key)
        model = fields[key].annotation if fields and key in fields else None
    return path


def _fields_at(path: Sequence[int | str]) -> list[str]:
    model: Any = Recipe
    for key in path:
        model = model.model_fields[str(key)].annotation
    return sorted(model.model_fields)
