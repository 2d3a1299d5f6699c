"""What the REST routes take: one class per body. What they give is built in ``studio.web.api.routes``.

Unknown keys are refused, so that a misspelt one is an error and not a silence.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from feedback.rules.annotations import MAX_SPANS
from feedback.types import MAX_PRIORITY, DatasetFilters, ShownVerdict, Split, UserRole, reject_bool, usable_stop

Whole = Annotated[int, Field(strict=True)]
"""A number that was meant as one: neither ``true`` nor ``"2"``, which would be counted as 1 and 2 by silence."""

Integer = Annotated[int, BeforeValidator(reject_bool)]
Real = Annotated[float, BeforeValidator(reject_bool)]
"""Numbers outside a judgment: ``"2"`` may mean 2, as in a run's settings, but ``true`` is none here either."""


MAX_CONTENT = 100_000
MAX_PROMPTS = 100_000


class Body(BaseModel):
    """What every body shares. The first unknown key refuses a body: one error, however many keys there are."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        fields = cls.model_fields
        if isinstance(given, dict) and not given.keys() <= fields.keys():
            unknown = next(key for key in given if key not in fields)
            raise PydanticCustomError(
                "extra_forbidden",
                "Extra inputs are not permitted: {key}; valid: {valid}",
                {"key": repr(str(unknown)[:80]), "valid": ", ".join(fields)},
            )
        return given


class MessageIn(Body):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_CONTENT)


class PromptIn(Body):
    """A conversation that waits for a reply; it ends with the user's turn."""

    messages: list[MessageIn] = Field(min_length=1, max_length=200)
    tags: list[str] = Field([], max_length=1000)
    split: Split = Split.work

    def plain(self) -> list[dict[str, str]]:
        """The messages as plain dictionaries."""
        return [message.model_dump() for message in self.messages]


class PromptsIn(Body):
    """Prompts to add, all or none."""

    prompts: list[PromptIn] = Field(min_length=1, max_length=MAX_PROMPTS)


class PromptsNamed(Body):
    """Prompts that are stored: by their ids, or all that carry a tag."""

    ids: list[str] = Field([], max_length=MAX_PROMPTS)
    tag: str | None = None


class BaseIn(Body):
    """Where a base model lies now: a directory of the machine that the studio runs on, or a Hugging Face id."""

    base: str = Field(min_length=1, max_length=4096)


class CheckIn(Body):
    """A model to check: a policy, a Hugging Face id, a server's address, smollm2 or starter; for admins also a path.

    ``chat_template`` is for a model without one: a name, or for admins a file with a Jinja template.
    """

    model: str = Field(min_length=1, max_length=4096)
    chat_template: str | None = Field(None, min_length=1, max_length=4096)


class ModelIn(CheckIn):
    """A model to add; without ``name`` the policy is called after it."""

    name: str | None = Field(None, min_length=1, max_length=200)


class ExportIn(Body):
    """What a policy is exported as; ``quantization`` is that of a GGUF file."""

    form: Literal["adapter", "merged", "gguf"] = "merged"
    quantization: Literal["f16", "q8_0"] = "f16"


class RunIn(Body):
    """A background job: a method and its settings, under the names the command's flags have.

    ``after`` names a run that must succeed first; a higher ``priority`` begins first.
    """

    method: str
    config: dict[str, Any] = {}
    after: str | None = None
    priority: Integer = Field(0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)


class TaskIn(Body):
    """Who asks for a task; while no users exist a name is optional. A NUL is what no database can hold."""

    annotator: str | None = Field(None, min_length=1, max_length=80, pattern=r"^[^\x00]*$")


class PageIn(Body):
    """A page of the studio, by the session its browser keeps."""

    session: str = Field(min_length=8, max_length=64, pattern=r"^[^\x00]*$")


class LabelIn(Body):
    """One act on the labeling screen: which browser asks, what it holds, and what the act is about.

    ``seq`` comes back with the answer; ``have`` are the leases whose markup the browser holds.
    """

    seq: Whole = Field(ge=0, le=2**53)
    session: str = Field(min_length=8, max_length=64, pattern=r"^[^\x00]*$")
    have: list[str] = Field([], max_length=16)
    guidelines: Whole = Field(-1, ge=-1, le=2**31)
    lease: str = ""
    leases: list[str] = Field([], max_length=16)
    said: dict[str, Any] = Field({})
    content: dict[str, Any] = Field({})
    at_work: bool = True


class EditIn(Body):
    """A better wording of one shown reply; ``index`` counts from 0 in shown order."""

    index: Whole
    text: str


class SpanIn(Body):
    """A mark on one shown reply; ``start`` and ``end`` count characters of its raw text."""

    index: Whole
    start: Whole
    end: Whole
    mark: Literal["good", "bad"]
    reason: str | None = None


class GuidelinesIn(Body):
    """A new version of what annotators are asked."""

    text: str
    criteria: list[str] = []
    asks_rationale: bool = False


class JudgmentIn(Body):
    """What an annotator says under a lease, in shown order: exactly one of verdict, ranking, skip_reason."""

    lease: str
    verdict: ShownVerdict | None = None
    strength: Whole | None = Field(None, ge=1, le=3)
    ranking: list[Whole] | None = Field(None, max_length=100)
    skip_reason: str | None = None
    rationale: str | None = None
    edited: EditIn | None = None
    spans: list[SpanIn] | None = Field(None, max_length=MAX_SPANS)
    criteria: dict[str, Annotated[list[Whole | None], Field(max_length=100)]] | None = Field(None, max_length=100)
    flag: str | None = None
    active_ms: Whole | None = None
    annotator: str | None = Field(None, min_length=1, max_length=80)


class UserIn(Body):
    """A user to add; the password is made up and told once."""

    name: str = Field(min_length=1, max_length=80)
    role: UserRole = UserRole.annotator


class RoleIn(Body):
    """Another role for a user."""

    role: UserRole


class PasswordIn(Body):
    """Another password for oneself."""

    current: str = Field(max_length=200)
    wanted: str = Field(max_length=200)


class Reason(Body):
    """Why a reviewer acts; whoever reads it later must understand it."""

    reason: str = Field(min_length=1, max_length=2000)


class DatasetIn(Body):
    """A dataset to freeze; filters left out take every judgment."""

    name: str
    filters: DatasetFilters | None = None


class GenerationsIn(Body):
    """Replies wanted at once, sampled in the studio's own process."""

    policy: str
    messages: list[MessageIn] = Field(min_length=1, max_length=200)
    n: Integer = Field(1, ge=1, le=64)
    temperature: Real | None = Field(None, ge=0.0, le=5.0)
    top_p: Real | None = Field(None, gt=0.0, le=1.0)
    max_new_tokens: Integer | None = Field(None, ge=1, le=8192)
    stop: Annotated[list[str], AfterValidator(usable_stop)] | None = None
    seed: Integer | None = Field(None, ge=0, le=2**31 - 1)
