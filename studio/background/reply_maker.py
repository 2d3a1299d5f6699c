"""Replies on demand: one policy kept in memory, loaded when it is first asked for.

Only for scripts and for trying a policy out; annotators are served from the pool. Torch is imported inside the
call, so that a studio nobody asks for replies never loads it. One lock covers loading and sampling: the cores
and the memory are enough for one policy at a time. A policy behind a server needs neither: it waits for nobody, and
nobody waits for it.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from feedback.database.engine import Database
from feedback.errors import EndpointFailed, InvalidInput
from feedback.store.content.generations import save_generations
from feedback.store.content.prompts import save_prompts
from feedback.store.models.policies import get_policy
from feedback.tables import GenerationRow
from feedback.types import ASKED_HERE, Generation, Prompt, SamplingSettings
from training.home import Home

if TYPE_CHECKING:
    from training.generation.sampling import Reply
    from training.models.chat import Messages
    from training.models.loading import LoadedPolicy


class ReplyMaker:
    """Samples replies in this process and keeps them in the store, with the policy and the seed that made them."""

    def __init__(self, home: Home, db: Database) -> None:
        self._home = home
        self._db = db
        self._lock = threading.Lock()
        self._loaded: tuple[str, LoadedPolicy] | None = None

    def reply(
        self, policy: str, messages: list[dict[str, str]], n: int, *, seed: int | None = None, **sampling: Any
    ) -> list[GenerationRow]:
        """Draw ``n`` replies to one conversation; without a seed a fresh one is drawn."""
        row = get_policy(self._db, policy)
        settings = SamplingSettings(**sampling)
        drawn = secrets.randbelow(2**31) if seed is None else seed
        replies = (self._asked if row.is_endpoint else self._sampled)(row.id, messages, n, settings, drawn)
        if all(reply.unfinished for reply in replies):
            raise InvalidInput(
                "Nothing was said: every reply ended inside its reasoning. Raise max_new_tokens, which counts that too "
                f"(now {settings.max_new_tokens})."
            )
        saved = save_prompts(self._db, [Prompt(messages=messages, tags=[ASKED_HERE])])
        return save_generations(
            self._db,
            [
                Generation(
                    prompt_id=saved.ids[0],
                    policy_id=row.id,
                    text=reply.text,
                    seed=reply.seed,
                    sampling=settings.model_dump(),
                    finish_reason=reply.finish_reason,
                    tokens=reply.tokens,
                    reasoning=reply.reasoning or None,
                )
                for reply in replies
                if reply.text.strip()
            ],
        )

    def forget(self) -> None:
        """Free the memory of the loaded policy."""
        with self._lock:
            self._loaded = None

    def _sampled(
        self, policy_id: str, messages: Messages, n: int, settings: SamplingSettings, seed: int
    ) -> list[Reply]:
        with self._lock:
            from training.checkpoints.opening import open_policy
            from training.generation.sampling import sample

            if self._loaded is None or self._loaded[0] != policy_id:
                self._loaded = None  # the old one goes before the new one comes: two may not fit
                self._loaded = (policy_id, open_policy(self._db, self._home, policy_id))
            return sample(self._loaded[1], [messages], n, settings, seed)[0]

    def _asked(self, policy_id: str, messages: Messages, n: int, settings: SamplingSettings, seed: int) -> list[Reply]:
        """The replies of a server; EndpointFailed, with its words, when it refuses to reply."""
        from training.checkpoints.opening import open_replier
        from training.generation.endpoint import Endpoint
        from training.generation.endpoint_answers import REFUSED
        from training.generation.sampling import sample

        replier = open_replier(self._db, self._home, policy_id)
        replies = sample(replier, [messages], n, settings, seed)[0]
        if isinstance(replier, Endpoint) and all(reply.finish_reason == REFUSED for reply in replies):
            raise EndpointFailed(replier.last_refusal)
        return replies
