"""What the labeling screen asks, under /api/label: each act is one request, answered with what the screen shows next.

The scripts in ``assets/`` draw the screen. A request names the lease that was on it, so a vote counts for what was
seen, whatever was pressed twice, reloaded or open in two windows. An answer names the tasks that this browser holds:
the one to show and the one after it, fetched ahead. Both belong to one release of the page: a program that labels uses
``/api/tasks/next`` and ``/api/judgments``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from feedback.errors import Conflict, InvalidInput, LeaseLost, NotFound
from feedback.labeling.amending import REMARKS
from feedback.labeling.assignment import Task
from feedback.store.rows import reason_of
from feedback.tables import ReviewRow
from feedback.types import UserRole, now
from studio.page.views.labeling import cards as cards_view
from studio.page.views.labeling import label as label_view
from studio.page.views.labeling import tools as tools_view
from studio.services.facade import Services
from studio.services.labeling import DECK_SIZE, LOCAL_ANNOTATOR
from studio.web.api.dependencies import Given
from studio.web.api.schemas import JudgmentIn, LabelIn

Act = Callable[[Services, LabelIn], dict[str, Any]]

_SAID = {
    "verdict", "strength", "ranking", "skip_reason",
    "rationale", "edited", "spans", "criteria", "flag", "active_ms",
}  # fmt: skip
MESSAGES = 20
"""How many of a reviewer's messages an annotator is shown, the newest first."""
_AWAY = "While this page was away, that pair went back to the pool or to another window. Here is another one."
_SAVED_BEFORE = "Already judged in another window: the first answer was kept. Here is the next one."
_LOST = "This pair had gone back to the pool, so it was not counted. Here is the next one."
_KEPT = " What you typed is kept for when it comes back."


def deck(services: Services, asked: LabelIn) -> dict[str, Any]:
    """What the browser's session holds, else the next task, else the empty state; and what reviewers wrote."""
    return _answer(services, asked, messages=cards_view.messages(_messages(services)))


def vote(services: Services, asked: LabelIn) -> dict[str, Any]:
    """Record what was said of the task on screen; the answer names the next."""
    lease = asked.lease
    try:
        said = _said(asked)
    except InvalidInput as error:
        return {"seq": asked.seq, "refused": str(error)}
    if 0 <= asked.guidelines < int(services.labeling.guidelines().version or 0):
        said["guidelines"] = asked.guidelines
    try:
        submitted = services.labeling.judge(lease, **said)
    except (LeaseLost, NotFound):
        late = _late(services, lease, said)
        note = _LOST if late is None else _SAVED_BEFORE if late.get("judged") else _LOST + _KEPT
        return _answer(services, asked, note, late=late)
    except InvalidInput as error:
        return {"seq": asked.seq, "refused": str(error)}
    # The pair after the next one is fetched when the person is reading again.
    if submitted.created:
        return _answer(services, asked, size=1)
    late = _late(services, lease, said)
    return _answer(services, asked, _SAVED_BEFORE, size=1, late=late)


def late(services: Services, asked: LabelIn) -> dict[str, Any]:
    """What was typed about a pair that went from the screen: what its judgment lacks, or a draft until it is judged."""
    found = _late(services, asked.lease, _remarks(asked))
    return {"seq": asked.seq, "lease": asked.lease, "late": found}


def add(services: Services, asked: LabelIn) -> dict[str, Any]:
    """Add what was typed to the saved judgment, as its next revision."""
    lease = asked.lease
    try:
        services.labeling.add_remarks(lease, _remarks(asked))
    except (Conflict, NotFound, InvalidInput) as error:
        return {"seq": asked.seq, "lease": lease, "refused": str(error)}
    return {"seq": asked.seq, "lease": lease, "added": True}


def _remarks(asked: LabelIn) -> dict[str, Any]:
    said = _said(asked)
    return {name: said[name] for name in REMARKS if said.get(name)}


def _said(asked: LabelIn) -> dict[str, Any]:
    """What was said, checked as ``POST /api/judgments`` checks it; InvalidInput for values of another kind."""
    given = {name: value for name, value in asked.said.items() if name in _SAID}
    try:
        judgment = JudgmentIn(lease=asked.lease, **given)
    except ValidationError as error:
        raise InvalidInput(reason_of(error)) from error
    return judgment.model_dump(exclude={"lease", "annotator"}, exclude_none=True)


def _late(services: Services, lease: str, said: dict[str, Any]) -> dict[str, Any] | None:
    """What became of words whose judgment is not theirs: None where there were none, or where it has them all."""
    words = {name: said[name] for name in REMARKS if said.get(name)}
    if not words:
        return None
    try:
        missing = services.labeling.missing_remarks(lease, words)
        if missing is None:
            services.labeling.save_draft(lease, words)
            return {"lease": lease, "judged": False}
    except (LeaseLost, NotFound, InvalidInput):
        return None
    return (
        {"lease": lease, "judged": True, "said": missing, "html": cards_view.late_words(missing)} if missing else None
    )


def undo(services: Services, asked: LabelIn) -> dict[str, Any]:
    """Take the last judgment back and show its task again."""
    task = services.labeling.undo(asked.session)
    note = "There is nothing to take back." if task is None else "Taken back: judge this one again."
    return _answer(services, asked, note)


def draft(services: Services, asked: LabelIn) -> dict[str, Any]:
    """Keep what is typed and set so far; one that comes after its judgment is not kept."""
    lease = asked.lease
    try:
        services.labeling.save_draft(lease, asked.content)
    except (LeaseLost, NotFound, InvalidInput):
        return {"seq": asked.seq, "lease": lease, "kept": False}
    return {"seq": asked.seq, "lease": lease, "kept": True}


def alive(services: Services, asked: LabelIn) -> dict[str, Any]:
    """The page is open: what it holds stays with it; what has gone elsewhere is replaced on the screen."""
    kept = [_kept(services, lease, asked.session, asked.at_work) for lease in asked.leases]
    if all(kept):
        return {"seq": asked.seq, "kept": True}
    return _answer(services, asked, "" if kept[0] else _AWAY)


def figures(services: Services, asked: LabelIn) -> dict[str, Any]:
    """The annotator's own work in numbers."""
    shown = tools_view.figures(services.labeling.annotator_figures(), _messages(services), now())
    return {"seq": asked.seq, "figures": shown}


def today(services: Services, asked: LabelIn) -> dict[str, Any]:
    """How much the annotator answered today, and in all; asked once a day, the page counts on from there."""
    total, recent = services.labeling.judged_since(_day_of(asked))
    return {"seq": asked.seq, "today": recent, "total": total}


def _day_of(asked: LabelIn) -> datetime:
    """When the day began by the annotator's clock; by UTC where the page does not say."""
    try:
        given = datetime.fromisoformat(str(asked.content.get("since")))
    except ValueError:
        given = now().replace(hour=0, minute=0, second=0, microsecond=0)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def _kept(services: Services, lease: str, session: str, at_work: bool) -> bool:
    try:
        services.labeling.keep(lease, session, at_work=at_work)
    except (LeaseLost, NotFound):
        return False
    return True


def _messages(services: Services) -> list[ReviewRow]:
    """What reviewers wrote to this annotator last; asked for while they read, never on the way of a vote."""
    return services.review.messages_for(LOCAL_ANNOTATOR)[:MESSAGES]


def _answer(
    services: Services, asked: LabelIn, note: str = "", *, size: int = DECK_SIZE, **more: Any
) -> dict[str, Any]:
    """Everything the screen needs to be right again; what the browser has already is only named."""
    known = set(asked.have)
    tasks = services.labeling.deck(asked.session, size=size)
    counts = services.labeling.label_counts(session=asked.session)
    answer: dict[str, Any] = {
        "seq": asked.seq,
        "deck": [{"lease": task.lease_id} if task.lease_id in known else _item(services, task) for task in tasks],
        "status": label_view.label_status(counts),
        "note": note,
        "more": len(tasks) == size < DECK_SIZE,
        **more,
    }
    if not tasks:
        reasons = services.users.whoami().role.covers(UserRole.researcher)
        alive = services.runs.worker_is_alive()
        answer["empty"] = label_view.empty_pool(services.pool.last_fill(), counts, reasons=reasons, worker=alive)
    rules = services.labeling.guidelines()
    if rules.version != asked.guidelines:
        answer["guidelines"] = {
            "version": rules.version,
            "html": tools_view.guidelines_text(rules),
            "criteria": rules.criteria,
            "asks_rationale": rules.asks_rationale,
        }
    return answer


def _item(services: Services, task: Task) -> dict[str, Any]:
    return {
        "lease": task.lease_id,
        "kind": task.kind.value,
        "html": label_view.pair(task),
        "texts": task.responses,
        "draft": services.labeling.draft_of(task),
    }


ACTS: tuple[Act, ...] = (deck, vote, undo, draft, alive, late, add, figures, today)

router = APIRouter(prefix="/api/label", include_in_schema=False)


def _route(act: Act) -> Callable[..., JSONResponse]:
    def answer(body: LabelIn, services: Given) -> JSONResponse:
        return JSONResponse(act(services, body))

    return answer


for _act in ACTS:
    router.add_api_route(f"/{_act.__name__}", _route(_act), methods=["POST"])


async def answer_vote(body: LabelIn, services: Services) -> JSONResponse:
    """Answer a vote without FastAPI, whose routing costs more than the vote; see ``studio.web.fast_path``."""
    return JSONResponse(await run_sync(vote, services, body))
