"""What is judged and what comes of it: prompts, generate, dataset, export, import."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from feedback.datasets.split_size import split_notes
from feedback.errors import InvalidInput
from feedback.formats import FORMATS
from feedback.formats.base.prompts import read_prompts
from feedback.store.content.prompts import SavedPrompts
from feedback.store.labeling.retirement import Retirement
from feedback.types import CUT_REPLY, DatasetFilters, MatchupKind, Prompt, Source, Split, Weighting
from studio.cli.session.context import opened
from studio.cli.session.output import AsJson, show_fields, show_json, show_line, show_table, tell
from studio.cli.session.waiting import submit_and_wait
from studio.worker_keeper import worker_for
from training.private_files import users_umask

prompts = typer.Typer(no_args_is_help=True, help="The conversations that wait for replies.")
dataset = typer.Typer(no_args_is_help=True, help="Frozen snapshots of judgments.")


@prompts.command("add")
def add_prompts(
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(help="What a user asks; left out with --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSONL as `prompts import` reads it, in place of a text.")] = None,
    system: Annotated[
        str | None, typer.Option(help="A system message before it; in a file, where a prompt has none.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
    split: Annotated[Split | None, typer.Option(help="What it is for; in a file, for lines that do not say.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add one prompt, or those of a file, with a system message and tags."""
    if (text is None) == (file is None):
        raise InvalidInput(
            "Give either a text or --file FILE, for instance `studio prompts add 'Why is the sky blue?'`."
        )
    given = read_prompts(file, split=split) if file else [_asked(str(text), split)]
    with opened(context) as session:
        saved = session.services.prompts.add_prompts([_completed(prompt, system, tag or []) for prompt in given])
    if as_json:
        show_json(_saved_json(saved) | {"ids": saved.ids})
    elif file is None:
        typer.echo(
            f"Added {saved.ids[0]}." if saved.added else f"{saved.ids[0]} was there already, and stays as it was."
        )
    else:
        typer.echo(f"Added {saved.added} prompts; {saved.duplicates} were there already and stay as they were.")
    _tell_held_out(saved)


@prompts.command("import")
def import_prompts(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help='JSONL, one {"messages": [{"role", "content"}]} a line.')],
    split: Annotated[Split | None, typer.Option(help="For lines that do not say theirs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add the prompts of a file; those already there are counted, not added again."""
    with opened(context) as session:
        saved = session.services.prompts.add_prompts(read_prompts(file, split=split))
    if as_json:
        show_json(_saved_json(saved))
    else:
        typer.echo(f"Added {saved.added} prompts; {saved.duplicates} were there already.")
    _tell_held_out(saved)


@prompts.command("list")
def show_prompts(
    context: typer.Context,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag; may be repeated, all must fit.")] = None,
    split: Annotated[Split | None, typer.Option(help="Only this split.")] = None,
    retired: Annotated[bool, typer.Option("--retired", help="The retired prompts instead of those in use.")] = False,
    tags: Annotated[bool, typer.Option("--tags", help="How many prompts carry each tag, instead of prompts.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List prompts, or count them by tag."""
    if tags and tag:
        raise InvalidInput("--tags counts the prompts of every tag; leave --tag out.")
    with opened(context) as session:
        acts = session.services.prompts
        counts = acts.count_tags(split, retired=retired) if tags else {}
        rows = [] if tags else acts.list_prompts(split, limit, tags=tag or (), retired=retired)
    if tags and as_json:
        show_json(counts)
    elif tags:
        show_table(
            ("tag", "prompts"), [(name or "(none)", count) for name, count in counts.items()], _no_prompts(retired)
        )
    elif as_json:
        show_json([row.model_dump(mode="json", include={"id", "messages", "split", "tags"}) for row in rows])
    else:
        table = [(row.id, row.split.value, ", ".join(row.tags), _one_line(row.messages[-1]["content"])) for row in rows]
        show_table(("id", "split", "tags", "prompt"), table, _no_prompts(retired or bool(tag)))


@prompts.command("retire")
def retire_prompts(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of prompts.")] = None,
    tag: Annotated[str | None, typer.Option(help="All prompts with this tag, instead of ids.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw nothing for prompts any more, and take their pairs out of the pool; what was judged on them stays."""
    with opened(context) as session:
        acts = session.services.prompts
        count = len(acts.choose(ids or [], tag, retired=True).changing)
        if count and not yes:
            _confirm(f"{count} prompts would be retired", "Nothing more is drawn for them. Retire them?")
        done = acts.retire(ids or [], tag)
    if as_json:
        show_json({"retired": done.changed, "already": done.already, "withdrawn": done.matchups})
    else:
        typer.echo(f"Retired {done.changed} prompts{_already(done)}; {done.matchups} open matchups left the pool.")


@prompts.command("restore")
def restore_prompts(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of prompts.")] = None,
    tag: Annotated[str | None, typer.Option(help="All prompts with this tag, instead of ids.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take retired prompts back into use, with those of their pairs that are still wanted."""
    with opened(context) as session:
        acts = session.services.prompts
        count = len(acts.choose(ids or [], tag, retired=False).changing)
        if count and not yes:
            _confirm(f"{count} prompts would be restored", "Replies are drawn for them again. Restore them?")
        done = acts.restore(ids or [], tag)
    if as_json:
        show_json({"restored": done.changed, "already": done.already, "reopened": done.matchups})
    else:
        typer.echo(f"Restored {done.changed} prompts{_already(done)}; {done.matchups} matchups are open again.")


def generate(
    context: typer.Context,
    policy: Annotated[str | None, typer.Option(help="Who replies; left out, the champion.")] = None,
    per_prompt: Annotated[int, typer.Option(help="Replies to each prompt.")] = 2,
    limit: Annotated[int, typer.Option(help="How many prompts, least judged first.")] = 50,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same replies.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Spread of the draw; 1 is the model's own.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="A reply is cut after this many tokens.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A string before which a reply ends; may be repeated.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, or fp32: never in bf16, so that a seed alone draws a reply again.")
    ] = None,
    kind: Annotated[MatchupKind, typer.Option(help="Pairs, or one ranking of all replies to a prompt.")] = (
        MatchupKind.pair
    ),
    against: Annotated[
        str | None, typer.Option(help="A second policy: each pair holds a reply of both, and teaches what a pair does.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fill the pool: draw replies and pair them up for the annotators. Waits until it is done."""
    config = {
        "policy": policy,
        "per_prompt": per_prompt,
        "limit": limit,
        "seed": seed,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "stop": stop or None,
        "precision": precision,
        "kind": kind.value,
        "against": against,
    }
    with opened(context) as session, worker_for(session.home, standby=False) as keeper:
        run = submit_and_wait(session, keeper, "generate", config)
    if as_json:
        show_json({"run_id": run.id, **run.result})
    elif run.result.get("nothing"):
        typer.echo(run.result["nothing"])
    else:
        typer.echo(
            f"Drew {run.result.get('generations', 0)} replies: {run.result.get('matchups', 0)} new matchups, "
            f"{run.result.get('identical', 0)} identical pairs and {run.result.get('refused', 0)} refused prompts "
            "left out."
        )
        if run.result.get("unfinished"):
            tell(
                f"{run.result['unfinished']} replies ended inside their reasoning and are left out too: raise "
                "--max-new-tokens."
            )


@dataset.command("freeze")
def freeze_dataset(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    source: Annotated[list[Source] | None, typer.Option(help="Only judgments of this source; may be repeated.")] = None,
    annotator: Annotated[list[str] | None, typer.Option(help="Only of this annotator; may be repeated.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="Only of this policy's replies; may be repeated.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only judgments from then on.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only judgments before then.")] = None,
    min_agreement: Annotated[float, typer.Option(help="Least share of votes for the winner, 0.5 to 1.")] = 0.5,
    test_share: Annotated[float, typer.Option(help="Share of prompts kept for testing, 0 to 0.5.")] = 0.1,
    split_seed: Annotated[int, typer.Option(help="The same seed splits prompts the same way.")] = 0,
    weighting: Annotated[Weighting, typer.Option(help="reliability weighs pairs by who judged them.")] = Weighting.none,
    playground: Annotated[bool, typer.Option("--playground", help="Take votes of the playground, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Freeze the judgments that pass the filters, with the pairs derived from them."""
    with opened(context) as session:
        filters = DatasetFilters(
            sources=tuple(source) if source else tuple(Source),
            annotators=tuple(annotator or ()),
            policies=tuple(policy or ()),
            since=None if since is None else since.astimezone(),
            until=None if until is None else until.astimezone(),
            min_agreement=min_agreement,
            test_share=test_share,
            split_seed=split_seed,
            weighting=weighting,
            playground=playground,
        )
        row = session.services.datasets.freeze(name, filters)
        twin = session.services.datasets.twin_of(row)
    if twin is not None:
        tell(f"{row.name} holds the same judgments and pairs as {twin}: nothing new was judged for it.")
    notes = split_notes(row.counts, test_share)
    for note in notes:
        tell(note)
    if as_json:
        show_json({**row.model_dump(mode="json"), "same_as": twin, "notes": notes})
    else:
        typer.echo(
            f"Froze {row.name} ({row.id}): {row.counts['pairs']} pairs from {row.counts['judgments']} judgments, "
            f"{row.counts['train']} to train on and {row.counts['test']} to test; left out: {_drops(row.dropped)}."
        )


@dataset.command("list")
def show_datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List datasets."""
    with opened(context) as session:
        rows = session.services.datasets.list_datasets()
    if as_json:
        show_json([row.model_dump(mode="json") for row in rows])
        return
    table = [
        (row.name, row.id, row.counts.get("pairs"), row.counts.get("train"), row.counts.get("test"), row.created_at)
        for row in rows
    ]
    headers = ("name", "id", "pairs", "train", "test", "frozen")
    show_table(headers, table, "No datasets yet; judge some pairs, then `studio dataset freeze NAME`.")


@dataset.command("show")
def show_dataset(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name or id.")],
    pairs: Annotated[int, typer.Option(min=0, help="How many pairs to show.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show a dataset's counts, drops, filters and first pairs."""
    with opened(context) as session:
        row = session.services.datasets.get_dataset(name)
        first = session.services.datasets.preview_pairs(row.id, pairs) if pairs else []
    if as_json:
        show_json({**row.model_dump(mode="json"), "preview": [pair.model_dump(mode="json") for pair in first]})
        return
    show_fields(row.model_dump(exclude={"filters"}) | {"filters": row.model_dump(mode="json")["filters"]})
    for pair in first:
        typer.echo(
            f"\nprompt    {_one_line(pair.messages[-1].content)}\nchosen    {_one_line(pair.chosen)}\n"
            f"rejected  {_one_line(pair.rejected)}"
        )


def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="DATASET", help="Name or id.")],
    out: Annotated[Path, typer.Option(help="The file to write; - is standard output.")],
    format: Annotated[str, typer.Option(help=f"One of: {', '.join(FORMATS)}.")] = "trl-preference",
    split: Annotated[str | None, typer.Option(help="Only this side of the split, train or test.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset for another tool, with a report of what was left out beside it."""
    with opened(context) as session:
        try:
            with users_umask():
                report = session.services.datasets.export_file(name, format, out, split)
        except OSError as error:
            raise InvalidInput(f"{out} cannot be written: {error.strerror}; name another file.") from error
    if as_json:
        beside = None if report.report is None else str(report.report)
        shown = {"path": str(report.path), "rows": report.rows, "dropped": report.dropped, "report": beside}
        show_json(shown, apart_from=out)
    else:
        line = f"Wrote {report.rows} rows to {report.path}; left out: {_drops(report.dropped)}."
        show_line(line, apart_from=out)


def import_data(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `studio export` or another tool wrote.")],
    format: Annotated[str, typer.Option(help="The format the file is in.")] = "raw",
    as_json: AsJson = False,
) -> None:
    """Read prompts, replies and judgments from a file: all of it, or nothing when a line is wrong."""
    with opened(context) as session:
        counts = session.services.datasets.import_file(file, format)
    if as_json:
        show_json(counts)
    else:
        typer.echo("Imported " + ", ".join(f"{name} {number}" for name, number in counts.items()) + ".")


def _asked(text: str, split: Split | None) -> Prompt:
    return Prompt.model_validate({"messages": [{"role": "user", "content": text}], "split": split or Split.work})


def _completed(prompt: Prompt, system: str | None, tags: list[str]) -> Prompt:
    """The prompt with a system message, where it has none, and with more tags."""
    has_own = system is None or prompt.messages[0]["role"] == "system"
    messages = prompt.messages if has_own else [{"role": "system", "content": system}, *prompt.messages]
    both = list(dict.fromkeys([*prompt.tags, *tags]))
    return Prompt.model_validate({"messages": messages, "split": prompt.split, "tags": both})


def _saved_json(saved: SavedPrompts) -> dict[str, Any]:
    changed = {"changed": len(saved.marked), "still_in_datasets": saved.still_in} if saved.marked else {}
    retired = {"retired": saved.retired} if saved.retired else {}
    return {"added": saved.added, "duplicates": saved.duplicates, **changed, **retired}


def _no_prompts(filtered: bool) -> str:
    if filtered:
        return "No such prompts; `studio prompts list --tags` counts those in use."
    return "No prompts yet; add some with `studio prompts add TEXT` or `studio prompts import FILE`."


def _confirm(what: str, question: str) -> None:
    """Ask a person at a terminal; without one, refuse. Ends the command where the answer is no."""
    if not sys.stdin.isatty():
        raise InvalidInput(f"{what}; nothing was changed. Say --yes to do it.")
    if not typer.confirm(f"{what}. {question}"):
        raise typer.Exit(1)


def _already(done: Retirement) -> str:
    return f" ({done.already} already were)" if done.already else ""


def _tell_held_out(saved: SavedPrompts) -> None:
    """Say where the file and the store disagree on what is kept for evaluation."""
    if saved.marked:
        tell(
            f"{len(saved.marked)} were work prompts and are evaluation prompts now: no dataset frozen from now on "
            "takes judgments of them."
        )
    if saved.still_in:
        names = ", ".join(saved.still_in)
        tell(f"Datasets frozen before hold judgments of them: {names}. Freeze others for training.")
    if saved.held_out:
        tell(f"{saved.held_out} that are not marked here are evaluation prompts, and stay so.")
    if saved.retired:
        tell(f"{saved.retired} are retired, and stay so; `studio prompts restore` takes them back into use.")


def _drops(dropped: dict[str, int]) -> str:
    reasons = {reason: count for reason, count in dropped.items() if count and reason != CUT_REPLY}
    left_out = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "nothing"
    cut = dropped.get(CUT_REPLY, 0)
    return left_out + (f". Kept: {cut} with a reply that was cut at its length limit" if cut else "")


def _one_line(text: str, width: int = 100) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
