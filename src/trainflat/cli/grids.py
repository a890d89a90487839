"""The command that does many runs: ``grid``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainflat.cli.commands import Data, Out, Sets, app
from trainflat.cli.lines import say, suggest
from trainflat.core.formatting import plural

if TYPE_CHECKING:
    from trainflat.commands.grid.grid import GridResult

Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Runs at a time; by default as many as cores and memory allow.")
]
RayAddress = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="Works on this Ray cluster; `auto` finds one here.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Shows what would be run, and ends.")]


@app.command(epilog="Example: trainflat grid rho.yaml --data ../data --workers 2")
def grid(
    file: Annotated[Path, typer.Argument(metavar="GRID.yaml", help="Recipes and axes; docs/grids.md shows some.")],
    *,
    data: Data = None,
    out: Out = Path("runs"),
    set_: Sets = None,
    workers: Workers = None,
    ray: RayAddress = None,
    dry_run: DryRun = False,
) -> None:
    """Does all runs of a grid; goes on where an earlier call was stopped."""
    from trainflat.cli.table import live_table, print_grid
    from trainflat.cli.terminal import progress_bar
    from trainflat.commands.grid.grid import grid as run_grid
    from trainflat.commands.grid.plan import plan_grid
    from trainflat.recipe.overrides import split_override

    with progress_bar() as progress:
        overrides = dict(map(split_override, set_ or []))
        plan = plan_grid(file, data=data, out=out, overrides=overrides, progress=progress)
        print_grid(plan, workers, progress, each=dry_run)
    if not dry_run:
        with live_table(plan.name) as watch:
            result = run_grid(plan, data=data, out=out, workers=workers, ray=ray, watch=watch)
        _print_result(result, out)


def _print_result(result: "GridResult", out: Path) -> None:
    """Prints scores, and why runs failed; exits with code 1 if one did."""
    from trainflat.cli.terminal import print_scores
    from trainflat.report import caveats, summary_table

    if result.records:
        print_scores(summary_table(result.records))
        for sentence in caveats(result.records):
            say(sentence)
    for name, reason in result.failed.items():
        say(f"failed: {name}: {reason}")
    if result.failed:
        failed = plural(len(result.failed), "run")
        say(f"{failed} failed. Mend what is said of them; the same command then does only what is missing.")
        raise typer.Exit(1)
    suggest("report", out)
