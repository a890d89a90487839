"""The commands: each reads its words, calls one function of ``trainflat.commands`` and prints what came of it.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

import json
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainflat.cli.lines import beside, say, say_note, shrinking, suggest
from trainflat.core.errors import InputError
from trainflat.core.listing import KINDS, listed
from trainflat.core.processes import is_first_process

if TYPE_CHECKING:
    from trainflat.core.registry import Registry

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Example: trainflat run demo-sam --set training.epochs=1",
)

Recipes = Annotated[
    list[str], typer.Argument(metavar="RECIPE...", help="YAML files, or names that `trainflat list` shows.")
]
OneRecipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file or a name that `trainflat list` shows.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Folder with the task's files; else $TRAINFLAT_DATA, else the Hugging Face hub."
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Runs make their folders in here.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides anything in the recipe; may be repeated."),
]
TaskName = Annotated[
    str | None, typer.Option("--task", metavar="NAME", help="Learns this instead of the recipe's task.")
]
Scored = Annotated[str | None, typer.Option("--task", metavar="NAME", help="Scores all on this task too.")]
TaskSets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the task; may be repeated.")
]
HeldOut = Annotated[int, typer.Option("--seed", min=0, help="Of the run, if it held out rows: the same are scored.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from trainflat.records.run import package_version

        told = ", ".join(f"{name} {package_version(name)}" for name in ("trainflat", "torch", "transformers"))
        print(f"{told}, Python {sys.version.split()[0]}")  # noqa: T201
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Shows the versions.")
    ] = False,
) -> None:
    """Trains transformer encoders into flat minima, then compresses them, and shows what that did."""
    if context.invoked_subcommand is None:
        print(context.get_help())  # noqa: T201


@app.command(epilog="Example: trainflat run small/stsb-imp --data ../data --set training.epochs=2 --seeds 1,2,3")
def run(
    recipes: Recipes,
    *,
    data: Data = None,
    out: Out = Path("runs"),
    set_: Sets = None,
    task: TaskName = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="Runs each recipe once per seed.")] = None,
) -> None:
    """Trains, prunes and measures; continues where an earlier call was stopped."""
    from trainflat.cli.terminal import print_scores, progress_bar
    from trainflat.commands.run import run as run_recipe
    from trainflat.recipe import load_recipe
    from trainflat.report import caveats, summary_table

    each = [None] if seeds is None else [_seed(text) for text in seeds.split(",")]
    given = _overrides(task, set_)
    loaded = [load_recipe(r, [*given, *([] if s is None else [f"seed={s}"])]) for r in recipes for s in each]
    records = []
    with progress_bar() as progress:
        for number, recipe in enumerate(loaded, 1):
            progress.say(f"[{number}/{len(loaded)}] {recipe.folder_name}, seed {recipe.seed}")
            records.append(run_recipe(recipe, data=data, out=out, progress=progress))
    if is_first_process():
        print_scores(summary_table(records))
        for sentence in caveats(records):
            say(sentence)
        for recipe in loaded:
            say(out / recipe.folder_name / "record.json")
        suggest("report", out)


@app.command(epilog="Example: trainflat check paper/cola-imp --data ../data")
def check(
    recipe: OneRecipe, *, data: Data = None, out: Out = Path("runs"), set_: Sets = None, task: TaskName = None
) -> None:
    """Validates a recipe and its data and prints the plan, without training."""
    from trainflat.cli.plans import print_plan
    from trainflat.commands.check import plan

    found = plan(recipe, data=data, out=out, overrides=_overrides(task, set_))
    print_plan(found)
    found.refuse_unseen()
    suggest("run", *sys.argv[2:])


@app.command(name="list", epilog="Example: trainflat list optimizers")
def list_(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=f"Only these: {', '.join(KINDS)}.")] = None,
) -> None:
    """Shows tasks, models, optimizers, pruners, measures, recipes and what else a recipe can name."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)
    for one in KINDS if kind is None else (kind,):
        title, members = listed(one)
        console.print(f"[bold]{escape(title)}[/bold]")
        for name, summary in members.items():
            console.print(escape(f"  {name:<18} {summary}" if name else f"  {summary}"))


@app.command(epilog="Example: trainflat report runs --out report")
def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="Records, landscapes, run folders, or folders of these.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Page, figures and tables go in here.")] = Path(
        "report"
    ),
    open_: Annotated[bool, typer.Option("--open", help="Opens the page in the browser.")] = False,
) -> None:
    """Turns records, and loss landscapes beside them, into one page, figures (PNG, SVG) and tables (CSV, Markdown)."""
    from trainflat.report import find_results, write_report

    found = find_results(results)
    for fault in found.left_out:
        say_note(f"left out: {fault}")
    for folder in found.unfinished:
        say_note(f"{folder} is not finished and is left out; run its recipe again.")
    page = write_report(found.records, out, landscapes=found.landscapes)
    say(page)
    if open_ and not webbrowser.open(page.resolve().as_uri()):
        say_note(f"no browser was found; open {page} in one.")
    stages = [stage for path in results for stage in sorted(path.glob("**/stages/*/"))]
    suggest(*(shrinking(stages[-1]) if stages else ("list", "recipes")))


@app.command(epilog="Example: trainflat diagnose runs/small-3f2a/stages/dense --task stsb --data ../data")
def diagnose(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Folders or hub names of fine-tuned models; two to compare.")
    ],
    task: Annotated[str, typer.Option(help="What they were fine-tuned on, by a name that `trainflat list` shows.")],
    *,
    data: Data = None,
    set_: TaskSets = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of flatness; cuts are scored on 4 times as many.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Draws the rows.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: 32 rows, three measures, three cuts.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The page and the JSON file go in here.")] = Path(
        "diagnosis"
    ),
) -> None:
    """Measures how flat a fine-tuned model is and how compressible, and says what we would do about it."""
    from trainflat.cli.terminal import progress_bar
    from trainflat.commands.diagnose import diagnose as examine
    from trainflat.core.unfinished import UNFINISHED_FILE
    from trainflat.report import write_diagnosis
    from trainflat.report.advice import advice

    section, unfinished = _sections(set_, task)["task"], out / UNFINISHED_FILE
    assert section is not None  # --task has to be given
    with progress_bar() as progress:
        found = examine(
            models, section, data=data, rows=rows, seed=seed, quick=quick, keep=unfinished, progress=progress
        )
    for sentence in advice(found):
        say(sentence)
    say(write_diagnosis(found, out))
    unfinished.unlink(missing_ok=True)
    if Path(models[0]).is_dir():
        suggest(*shrinking(Path(models[0])))
    else:
        options = [*(("--data", data) if data else ()), *(piece for one in set_ or [] for piece in ("--set", one))]
        suggest("check", "demo-sam", "--set", f"model={models[0]}", "--task", task, *options)


@app.command(epilog="Example: trainflat export runs/small-3f2a/stages/sparsity-0.90 --to sparse --set values=int8")
def export(
    model: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model: a stage of a run, or any safetensors one.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="A format that `trainflat list` shows.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The new folder; else beside the model's.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the format or of the task; may be repeated."),
    ] = None,
    task: Scored = None,
    data: Data = None,
    seed: HeldOut = 0,
) -> None:
    """Writes a model in a format that others load, and checks it against the model on real text."""
    from trainflat.commands.export import export as write

    target = out or beside(model, to)
    given = _sections(set_, task, to)
    found = write(model, to, target, given["format"] or {}, task=given["task"], data=data, seed=seed)
    for sentence in found.sentences():
        say(sentence)
    say(target)
    suggest("bench", model, target)


@app.command(
    epilog="Example: trainflat compress my-bert --task files --set train_file=reviews.csv --set label=stars --speedup 3"
)
def compress(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub name of a fine-tuned model.")],
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="What it was fine-tuned on.")],
    *,
    speedup: Annotated[str | None, typer.Option(metavar="X", help="Times as fast on this machine.")] = None,
    latency: Annotated[str | None, typer.Option(metavar="5ms", help="Time of one forward pass.")] = None,
    size: Annotated[str | None, typer.Option(metavar="20MB", help="Of the weights, as float32.")] = None,
    sparsity: Annotated[str | None, typer.Option(metavar="SHARE", help="Of the layers' parameters, to remove.")] = None,
    max_drop: Annotated[str | None, typer.Option(metavar="POINTS", help="That the score may lose.")] = None,
    retrain: Annotated[float, typer.Option(metavar="EPOCHS", help="Of distillation from the original.")] = 0,
    trim: Annotated[bool, typer.Option("--trim", help="Drop words that the training rows do not use.")] = False,
    floor: Annotated[
        float, typer.Option(help="Share of rows both must answer alike, or their correlation; 0: none.")
    ] = 0.8,
    pruner: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Score of units: obs, kprune, wanda, magnitude, random; fisher, taylor by labels."
        ),
    ] = "obs",
    repair: Annotated[
        str, typer.Option(metavar="NAME", help="Of what is left: least-squares, rescale or none.")
    ] = "least-squares",
    shape: Annotated[str, typer.Option(help="friendly: widths that kernels like; or ragged.")] = "friendly",
    rows: Annotated[int, typer.Option(min=1, help="Training rows that are looked at.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Rows that are timed.")] = 1,
    length: Annotated[int, typer.Option(min=1, help="Tokens per row that are timed.")] = 128,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch, for timing.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The new folder; else beside the model's.")
    ] = None,
    data: Data = None,
    seed: HeldOut = 0,
    set_: TaskSets = None,
) -> None:
    """Makes a fine-tuned model physically smaller and faster, in minutes and without training it."""
    from trainflat.cli.terminal import print_compression, progress_bar
    from trainflat.commands.compress import compress as make_smaller

    section = _sections(set_, task)["task"]
    assert section is not None  # --task has to be given
    target = out or beside(Path(model) if Path(model).is_dir() else Path(Path(model).name), "compressed")
    with progress_bar() as progress:
        found = make_smaller(
            model,
            section,
            out=target,
            speedup=speedup,
            latency=latency,
            size=size,
            sparsity=sparsity,
            max_drop=max_drop,
            retrain=retrain,
            trim=trim,
            floor=floor,
            pruner=pruner,
            repair=repair,
            shape=shape,
            rows=rows,
            batch=batch,
            length=length,
            threads=threads,
            data=data,
            seed=seed,
            progress=progress,
        )
    print_compression(found)
    say(target)
    suggest(*shrinking(target))


@app.command(epilog="Example: trainflat bench runs/small-3f2a/stages/dense --backend torch,onnx,openvino --batch 1,32")
def bench(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Folders of models, or exported files: .onnx, .xml (OpenVINO), .pt2."),
    ],
    *,
    backend: Annotated[
        str, typer.Option(metavar="NAME,...", help="torch, or formats of `trainflat export`: onnx, openvino, int8, ...")
    ] = "torch",
    batch: Annotated[str, typer.Option(metavar="1,32", help="Rows.")] = "1",
    length: Annotated[str, typer.Option(metavar="32,128", help="Tokens per row.")] = "128",
    threads: Annotated[str, typer.Option(metavar="1,2", help="Of every backend.")] = "1",
    rounds: Annotated[
        int, typer.Option(help="Times that each takes its turn; 6 or more for significant speed-ups.")
    ] = 7,
    task: Scored = None,
    data: Data = None,
    seed: HeldOut = 0,
    set_: TaskSets = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="JSON and figure (PNG, SVG) go in here.")] = Path(
        "bench"
    ),
) -> None:
    """Times models side by side on the CPU: latency, throughput, size, memory, score."""
    from trainflat.cli.terminal import print_comparison, progress_bar
    from trainflat.commands.bench.compare import compare

    with progress_bar() as progress:
        found = compare(
            models,
            backends=list(dict.fromkeys(backend.split(","))),
            batches=_numbers("--batch", batch),
            lengths=_numbers("--length", length),
            threads=_numbers("--threads", threads),
            rounds=rounds,
            task=_sections(set_, task)["task"],
            data=data,
            seed=seed,
            progress=progress,
        )
    print_comparison(found, out)
    folders = [path for path in models if path.is_dir()]
    suggest(*(shrinking(folders[0]) if folders else ("list", "formats")))


def _overrides(task: str | None, given: list[str] | None) -> list[str]:
    return [*([] if task is None else [f"task={json.dumps(task)}"]), *(given or [])]


def _sections(given: list[str] | None, task: str | None, to: str | None = None) -> dict[str, dict[str, Any] | None]:
    from trainflat.export import EXPORTERS
    from trainflat.recipe import named_sections
    from trainflat.tasks import TASKS

    named: dict[str, tuple[Registry[Any], str | None]] = {"task": (TASKS, task)}
    return named_sections(given or [], **named, **({} if to is None else {"format": (EXPORTERS, to)}))


def _seed(text: str) -> int:
    if not text.strip().isdecimal():
        raise InputError(f"--seeds takes whole numbers such as 1,2,3, got {text!r}.")
    return int(text)


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"{option} takes whole numbers of at least 1 such as 1,32, got {text!r}.")
    return list(dict.fromkeys(map(int, parts)))
