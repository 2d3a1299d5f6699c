"""Policies: which there are, which one serves, and how they compare."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput, NotAllowed, NotFound, StudioError
from feedback.store.datasets import datasets as dataset_store
from feedback.store.models import checkpoints as checkpoint_store
from feedback.store.models import policies as policy_store
from feedback.store.models import runs as run_store
from feedback.store.models import scorecards as scorecard_store
from feedback.store.reports import lineage as lineage_store
from feedback.store.rows import value_of
from feedback.tables import CheckpointRow, GenerationRow, PolicyRow, RunRow, ScorecardRow
from feedback.types import ENDPOINT_SCHEMES, Policy, UserRole
from studio.background.pool_filler import PENDING, POOL_SIZE
from studio.services.access import Acts, act
from training.bundled import POLICY_IDS
from training.checkpoints.base_check import Examination
from training.checkpoints.registration import Added, is_hub_id
from training.evaluation import standing
from training.evaluation.people import PEOPLE, asked_of_people
from training.export.archive import archive_name, archive_path
from training.export.exporting import Exported, Form, Request, export_policy
from training.generation.endpoint import sends_key
from training.model_check.report import ModelReport
from training.operations.rebase import Rebased, rebase
from training.plain_templates import PLAIN_TEMPLATES
from training.rewards.functions import reward_function_names
from training.rewards.oracles import oracle_rules
from training.runs import queue
from training.serving.examine import Question, add_model, check_base_model
from training.settings.export import ExportSettings

log = logging.getLogger(__name__)
_A_FILE = "Files and directories of the machine that the studio runs on are for an admin to name: ask one."


@dataclass(frozen=True)
class PolicySummary:
    """A policy with what the list shows beside it; ``win_rate`` is the measurement that speaks for it."""

    policy: PolicyRow
    is_champion: bool
    parent: str | None
    dataset: str | None
    win_rate: ScorecardRow | None
    against: str | None


@dataclass(frozen=True)
class PolicyExport:
    """The newest run that exported a policy in a form; ``is_there``: an archive of this form can be downloaded."""

    form: str
    quantization: str
    run: RunRow
    is_there: bool


@dataclass(frozen=True)
class Promotion:
    """A new champion, the one it took over from, and the run that fills the pool with its replies."""

    policy: PolicyRow
    previous: str | None
    run: RunRow | None


class Policies(Acts):
    """Acts on policies."""

    @act(UserRole.researcher)
    def list_policies(self) -> list[PolicySummary]:
        """All policies, newest first, with parent, dataset and the win rate that speaks for each."""
        rows = policy_store.list_policies(self.db)
        champion = policy_store.get_champion(self.db)
        names = {row.id: row.name for row in rows}
        made_from = self._datasets_by_checkpoint()
        scorecards = self._speaking(rows)
        return [
            PolicySummary(
                policy=row,
                is_champion=champion is not None and champion.id == row.id,
                parent=names.get(row.parent_id or ""),
                dataset=made_from.get(row.checkpoint_id or ""),
                win_rate=scorecards.get(row.id),
                against=names.get(scorecards[row.id].against_id or "") if row.id in scorecards else None,
            )
            for row in reversed(rows)
        ]

    @act(UserRole.researcher)
    def get_policy(self, key: str) -> PolicySummary:
        """One policy, by id or name, with what the list shows beside it."""
        wanted = policy_store.get_policy(self.db, key)
        return next(summary for summary in self.list_policies() if summary.policy.id == wanted.id)

    @act(UserRole.researcher)
    def champion_name(self) -> str | None:
        """The name of the policy that serves."""
        champion = policy_store.get_champion(self.db)
        return champion.name if champion else None

    @act(UserRole.researcher, audit="policy.promote", about="key")
    def promote(self, key: str, *, fill: bool = True) -> Promotion:
        """Make a policy the champion and, with ``fill``, queue a run that fills the pool with its replies.

        A run still filling the pool with another policy is cancelled, so that old replies do not come after new; one
        that has people measure it goes on. From the change of champion on nothing is refused: what was asked for has
        happened, and is told and written down so.
        """
        before = policy_store.get_champion(self.db)
        policy = policy_store.promote_policy(self.db, key)
        if not fill or (before is not None and before.id == policy.id):
            return Promotion(policy, before.name if before else None, None)
        filler = self.shared.filler
        with filler.lock:
            filler.cancel_fills_of_others(policy)
            pending = filler.newest_fill(PENDING)
            try:
                run = pending or filler.submit_fill(POOL_SIZE)
            except StudioError as error:
                log.warning("The pool was not filled after the promotion: %s", error)
                run = None
        return Promotion(policy, before.name if before else None, run)

    @act(UserRole.researcher, audit="policy.add", about="model", detail=("name", "chat_template"))
    def add(
        self,
        model: str,
        name: str | None = None,
        *,
        chat_template: str | None = None,
        say: Callable[[str], None] = lambda _: None,
        apart: bool = False,
    ) -> Added:
        """Register a model of this machine, of the hub or behind a server; one that is here is examined first.

        SmolLM2 is downloaded and converted first where that has not happened, and so is a GGUF file converted; ``say``
        receives progress messages. ``chat_template`` is a name or a file, for a model without one. With ``apart`` a
        process of its own does all that, as the page and REST must have it.

        A researcher may name what is fetched or asked by the same rules for everybody: a hub id, a server, a bundled
        model. A path needs an admin. It reads the disk with the rights of the studio, which are not those of the
        person: whether a file is there, what a JSON, GGUF or template file says of itself in an error, and then, by
        the replies of the model, what the files hold. No code of a model runs, whoever adds it: ``trust_remote_code``
        is off, pickles are read as tensors alone, and templates are rendered in a sandbox. A server to which this
        studio would send a key needs an admin too, unless there is a policy behind the same address already:
        otherwise its keys would be had by naming a server of one's own.
        """
        if name is not None:
            value_of(Policy, name=name, base=model)
        self._may_name(model, chat_template, "add")
        if not apart:
            return add_model(self.db, model, name, chat_template, say)
        question = Question(act="add", model=model, name=name, chat_template=chat_template)
        found = self.shared.examiner.ask(question, say)
        return Added(policy_store.get_policy(self.db, found["policy"]), _examination(found["seen"]))

    @act(UserRole.researcher)
    def check(
        self,
        model: str,
        *,
        chat_template: str | None = None,
        say: Callable[[str], None] = lambda _: None,
        apart: bool = False,
    ) -> ModelReport:
        """What a model, or the base of a policy, can be used for on this machine; it is loaded where it fits.

        A GGUF file is converted and SmolLM2 downloaded for it, as when they are added; who may name what, and
        ``apart``, are as with ``add``. The base of a policy that is here may be checked by every researcher.
        """
        base = _no_server(self._base_of(model))
        self._may_name(model if base == model else None, chat_template, "check")
        if not apart:
            return check_base_model(base, chat_template, say)
        found = self.shared.examiner.ask(Question(act="check", model=base, chat_template=chat_template), say)
        return ModelReport.from_json(found)

    @act(UserRole.researcher)
    def check_policy(self, key: str) -> ModelReport:
        """What the base of a policy can be used for on this machine, estimated without loading or fetching it."""
        from training.model_check.check import check_model

        return check_model(_no_server(policy_store.get_policy(self.db, key).base), try_it=False)

    @act(UserRole.researcher, audit="policy.rebase", about="key", detail=("base", "unproven"))
    def rebase(self, key: str, base: str, *, unproven: bool = False) -> Rebased:
        """Say where the base of a policy lies now, for all that stands on it; proved by its hash.

        With ``unproven`` the word of an admin is taken where nothing recorded which model the base was.
        """
        if unproven and not self.person.role.covers(UserRole.admin):
            raise NotAllowed("Only an admin may say which model a base was where nothing recorded it.")
        return rebase(self.db, self.home, key, base, unproven=unproven)

    @act(UserRole.admin, audit="policy.export", about="key", detail=("form", "out", "public"))
    def export(
        self,
        key: str,
        form: Form,
        out: str,
        *,
        quantization: str = "f16",
        prompts: int = 8,
        contents: Form = Form.merged,
        public: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> Exported:
        """Write a policy to a directory of this machine, or push it to the Hub; takes minutes, in this process.

        An export that replies differently from the policy is discarded. ``say`` receives a message for each step. See
        ``training.export.exporting.export_policy`` for arguments and errors.
        """
        request = Request(form, out, quantization, prompts, contents, public)
        return export_policy(self.db, self.home, key, request, say)

    @act(UserRole.researcher, audit="run.submit")
    def start_export(self, key: str, form: str, quantization: str = "f16") -> RunRow:
        """Queue a run that packs a policy into an archive to download, or give back the one under way."""
        policy = policy_store.get_policy(self.db, key)
        active = run_store.list_runs(self.db, method="export", states=PENDING)
        same = (run for run in active if _is_export_of(run, policy.id, form, quantization))
        config = {"policy": policy.id, "form": form, "quantization": quantization}
        return next(same, None) or queue.submit(self.db, "export", config)

    @act(UserRole.researcher)
    def list_exports(self, key: str) -> list[PolicyExport]:
        """The newest export of a policy in each form that was asked for, and whether its archive is there."""
        policy = policy_store.get_policy(self.db, key)
        newest: dict[str, PolicyExport] = {}
        for run in run_store.list_runs(self.db, method="export"):
            form, quantization = _form_of(run)
            path = archive_path(self.home, policy.id, form, quantization)
            if run.config.get("policy") == policy.id and path.name not in newest:
                newest[path.name] = PolicyExport(form, quantization, run, path.is_file())
        return list(newest.values())

    @act(UserRole.researcher, audit="policy.download", about="key", detail=("form", "quantization"))
    def exported_archive(self, key: str, form: str, quantization: str = "f16") -> tuple[Path, str]:
        """The archive of a policy in this form, and what it is called.

        Raises NotFound where none was made, or the newest attempt is not over.
        """
        policy = policy_store.get_policy(self.db, key)
        path = archive_path(self.home, policy.id, form, quantization)
        if not path.is_file():
            ask = f"POST /api/policies/{policy.name}/export makes one; GET /api/runs/RUN returns its progress."
            raise NotFound("export", archive_name(policy.name, form, quantization), hint=ask)
        return path, archive_name(policy.name, form, quantization)

    @act(UserRole.researcher)
    def lineage(self, key: str) -> dict[str, Any]:
        """Everything a policy came from, back to its base model."""
        return lineage_store.policy_lineage(self.db, key)

    @act(UserRole.researcher)
    def list_win_rates(self, policy_id: str) -> list[tuple[ScorecardRow, str]]:
        """Every win rate of a policy, with the name of whom it was measured against, in the order they speak."""
        names = {row.id: row.name for row in policy_store.list_policies(self.db)}
        return [(card, names.get(card.against_id or "", "another")) for card in standing.win_rates(self.db, policy_id)]

    @act(UserRole.researcher)
    def list_scorecards(self, key: str) -> list[ScorecardRow]:
        """Everything that was measured of a policy and kept, newest first."""
        return scorecard_store.list_scorecards(self.db, subject_id=policy_store.get_policy(self.db, key).id)

    @act(UserRole.researcher)
    def list_reward_models(self) -> list[CheckpointRow]:
        """Reward models that can judge an evaluation, newest first."""
        rows = checkpoint_store.list_checkpoints(self.db, kind="reward")
        return sorted(rows, key=lambda row: row.created_at, reverse=True)

    @act(UserRole.researcher)
    def reward_functions(self) -> list[str]:
        """The reward functions that can score replies, those of installed packages included."""
        return reward_function_names()

    @act(UserRole.researcher)
    def oracle_rules(self) -> list[str]:
        """The rules that can judge as they stand; those with a part to fill in are for the command."""
        return [rule for rule in oracle_rules() if ":" not in rule]

    @act(UserRole.researcher, audit="policy.reply", about="policy")
    def generate(self, policy: str, messages: list[dict[str, str]], n: int, **sampling: Any) -> list[GenerationRow]:
        """Sample ``n`` replies on demand, in this process, and keep them; slow when the policy is not loaded yet."""
        return self.shared.replies.reply(policy, messages, n, **sampling)

    @act(UserRole.researcher, audit="run.submit")
    def evaluate(self, policy: str, against: str, judge: str, prompts: int) -> RunRow:
        """Queue a win-rate evaluation. ``judge`` is an oracle rule, ``reward:`` and a reward checkpoint, or ``people``.

        People are asked by pairs that come first on the Label tab; what they say is counted as it comes in.
        """
        if not against or not judge:
            raise InvalidInput("Choose a policy to compare with and who judges.")
        if policy == against:
            raise InvalidInput(f"{policy!r} cannot be compared with itself; choose another policy to compare with.")
        if judge == PEOPLE:
            return queue.submit(self.db, "generate", asked_of_people(policy, against, prompts))
        kind, _, checkpoint = judge.partition(":")
        by = {"reward": checkpoint} if kind == "reward" else {"oracle": judge}
        return queue.submit(self.db, "evaluate", {"a": policy, "b": against, "prompts": prompts, **by})

    def _may_name(self, model: str | None, chat_template: str | None, act_name: str) -> None:
        """Refuse a researcher what only an admin may name: see ``add``. None is the base of a policy that is here."""
        is_server = model is not None and model.startswith(ENDPOINT_SCHEMES)
        with_key = model is not None and is_server and sends_key(model)  # for whoever asks: it refuses what is none
        if self.person.role.covers(UserRole.admin):
            return
        why = ""
        if chat_template is not None and chat_template not in PLAIN_TEMPLATES:
            why = f"There is no chat template {chat_template!r}: choose {', '.join(PLAIN_TEMPLATES)}. {_A_FILE}"
        elif model is not None and with_key and not self._has_server(model):
            why = (
                f"This studio holds a key that would be sent to {model.partition('#')[0]}, so only an admin may name "
                "that server for the first time: ask one. Further models of it need none."
            )
        elif model is not None and not (is_server or model in POLICY_IDS or is_hub_id(model)):
            why = (
                f"{model!r} is neither a Hugging Face id (OWNER/NAME), nor a server's address "
                f"(http://HOST:PORT/v1#MODEL), nor {' or '.join(POLICY_IDS)}. {_A_FILE}"
            )
        if why:
            self.note_refusal(act_name, UserRole.admin)
            raise NotAllowed(why)

    def _has_server(self, model: str) -> bool:
        """Whether a policy replies from the address of this model already."""
        address = model.partition("#")[0].rstrip("/")
        rows = policy_store.list_policies(self.db)
        return any(row.is_endpoint and row.can_reply and row.base.partition("#")[0] == address for row in rows)

    def _base_of(self, model: str) -> str:
        try:
            return policy_store.get_policy(self.db, model).base
        except NotFound:
            return model

    def _datasets_by_checkpoint(self) -> dict[str, str]:
        names = {row.id: row.name for row in dataset_store.list_datasets(self.db)}
        rows = checkpoint_store.list_checkpoints(self.db)
        return {row.id: names[row.dataset_id] for row in rows if row.dataset_id in names}

    def _speaking(self, rows: Sequence[PolicyRow]) -> dict[str, ScorecardRow]:
        """The measurement that stands for each policy, by its id; the gate asks the same one."""
        cards: dict[str, list[ScorecardRow]] = {}
        for card in scorecard_store.list_scorecards(self.db):
            cards.setdefault(card.subject_id, []).append(card)
        found = {row.id: standing.speaking(self.db, row, cards.get(row.id, [])) for row in rows}
        return {key: card for key, card in found.items() if card is not None}


def _examination(seen: Sequence[Any] | None) -> Examination | None:
    """What a process of its own examined, as it told it."""
    return None if seen is None else Examination(str(seen[0]), tuple(seen[1]), tuple(seen[2]))


def _form_of(run: RunRow) -> tuple[str, str]:
    """The form and the weights that an export was asked for, as its settings complete them."""
    settings = ExportSettings.model_validate(run.config)
    return settings.form, settings.quantization


def _is_export_of(run: RunRow, policy_id: str, form: str, quantization: str) -> bool:
    return run.config.get("policy") == policy_id and _form_of(run) == (form, quantization)


def _no_server(base: str) -> str:
    """The base, unless it is a server's address: InvalidInput then."""
    if base.startswith(ENDPOINT_SCHEMES):
        raise InvalidInput(
            f"{base} is a server: its model replies elsewhere and is not trained here, so there is nothing to check. "
            "`studio policies add` asks it whether it has the model."
        )
    return base
