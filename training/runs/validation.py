"""Check a run before it is queued: references, dataset, parent, libraries."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from typing import Any

from feedback.database.engine import Database
from feedback.errors import (
    Conflict,
    InvalidInput,
    NotEnoughData,
    NotFound,
)
from feedback.store.datasets.datasets import get_dataset
from feedback.store.models.checkpoints import get_checkpoint, get_to_score
from feedback.store.models.policies import check_can_reply, check_has_weights, get_champion, get_policy
from training.checkpoints.loading import refuse_other_base
from training.home import Home
from training.models.loading import check_quantize
from training.rewards.functions import get_reward_function, reward_function_names
from training.rewards.oracles import check_rule
from training.rewards.scorers import checkpoint_keys
from training.settings.train import RewardedSettings, Settings, TrainSettings
from training.trainer.parents import check_trains_on

MIN_TRAINING_PAIRS = 2


def _check_references(db: Database, settings: Settings, promised: Collection[str] = ()) -> dict[str, str]:
    """Raise for a name in the settings that nothing answers to; returns the champions to fill in.

    Names ``promised`` by the runs that are waited for need not exist yet.
    """
    named = settings.model_dump()
    values: dict[str, Any] = {name: None if str(value) in promised else value for name, value in named.items()}
    if values.get("dataset") is not None:
        _check_dataset(db, values["dataset"], settings)
    if values.get("reward") is not None:
        several = isinstance(settings, RewardedSettings)
        for key in checkpoint_keys(values["reward"]) if several else [values["reward"]]:
            get_to_score(db, key)
    _check_weights(db, settings, promised)
    if values.get("canary_reward") is not None:
        get_to_score(db, values["canary_reward"])
    if isinstance(settings, RewardedSettings) and settings.REWARDS_SHARE_BASE:
        _check_one_base(db, settings, promised)
    if values.get("reward_function") is not None:
        get_reward_function(values["reward_function"])
    if values.get("picker") is not None:
        _check_picker(db, values["picker"])
    if values.get("oracle") is not None:
        check_oracle(db, values["oracle"])
    for field in ("policy", "parent", "a", "b", "against"):
        if values.get(field) is not None:
            check_can_reply(get_policy(db, values[field]))
    if isinstance(settings, TrainSettings) and str(settings.parent) not in promised:
        _check_parent(db, settings)
    left_out = [field for field in ("policy", "parent") if field in named and named[field] is None]
    filled: dict[str, str] = {field: _champion_name(db) for field in left_out}
    if named.get("against") is not None:
        _check_two(db, named["policy"] or filled["policy"], named["against"], promised)
    return filled


def _check_two(db: Database, one: str, other: str, promised: Collection[str]) -> None:
    """A policy that is yet to be made has a name and no id."""
    ids = [key if key in promised else get_policy(db, key).id for key in (one, other)]
    if ids[0] == ids[1]:
        raise InvalidInput(f"{other!r} cannot be compared with itself; name another policy to compare with.")


def _check_weights(db: Database, settings: Settings, promised: Collection[str]) -> None:
    """What is trained, or asked how likely a token is, must have its weights here."""
    named = settings.model_dump(include={"parent", "policy"})
    if not settings.NEEDS_WEIGHTS or not named:
        return
    key = named.get("parent", named.get("policy"))
    policy = None if key in promised else get_policy(db, key) if key else get_champion(db)
    if policy is not None:
        check_has_weights(policy)


def _check_parent(db: Database, settings: TrainSettings) -> None:
    parent = get_policy(db, settings.parent) if settings.parent else get_champion(db)
    if parent is not None and parent.checkpoint_id is not None:
        kind = get_checkpoint(db, parent.checkpoint_id).manifest.get("adapter", {}).get("kind", "")
        check_trains_on(parent.name, parent.base, kind, settings)


def _check_one_base(db: Database, settings: RewardedSettings, promised: Collection[str]) -> None:
    """Refuse reward models, the canary's included, that are not on the base of the policy."""
    if settings.parent in promised:
        return
    parent = get_policy(db, settings.parent) if settings.parent else get_champion(db)
    for key in [*settings.reward_checkpoints(), *filter(None, [getattr(settings, "canary_reward", None)])]:
        if parent is not None and key not in promised:
            row = get_checkpoint(db, key)
            refuse_other_base(row.name, row.base, row.manifest.get("base_hash"), parent.base)


def _champion_name(db: Database) -> str:
    champion = get_champion(db)
    if champion is None:
        raise InvalidInput(
            "No policy serves yet; name one, promote one with `studio policies promote NAME`, "
            "or register a model with `studio up --policy MODEL`."
        )
    return champion.name


def _check_dataset(db: Database, key: str, settings: Settings) -> None:
    dataset = get_dataset(db, key)
    if not settings.NEEDS_PAIRS:
        return
    pairs = dataset.counts.get("train", dataset.counts.get("pairs", 0))
    fewest = settings.FEWEST
    if MIN_TRAINING_PAIRS <= pairs < fewest and not getattr(settings, "allow_few", False):
        raise NotEnoughData(
            f"Dataset {dataset.name!r} has {pairs} training pairs, and {settings.METHOD} "
            f"learns nothing that lasts from fewer than {fewest}; judge more pairs (200 are a good start), or insist "
            "with --set allow_few=true."
        )
    if pairs < MIN_TRAINING_PAIRS:
        raise NotEnoughData(
            f"Dataset {dataset.name!r} has {pairs} training pair{'' if pairs == 1 else 's'}, and at least "
            f"{MIN_TRAINING_PAIRS} are needed; judge more pairs (200 are a good start) and freeze a new dataset."
        )


def _check_picker(db: Database, picker: str) -> None:
    """A picker is a reward function by its rule, or reward checkpoints."""
    if picker.partition(":")[0] in reward_function_names():
        get_reward_function(picker)
        return
    for key in checkpoint_keys(picker):
        get_to_score(db, key)


def check_oracle(db: Database, rule: str) -> None:
    """Refuse a rule that nobody knows, and a reward checkpoint that is not there."""
    check_rule(rule)
    kind, _, checkpoint = rule.partition(":")
    if kind == "reward":
        get_to_score(db, checkpoint.strip())


def check_harness() -> None:
    """Raise InvalidInput where lm-evaluation-harness, which benchmarks need, is not installed."""
    if find_spec("lm_eval") is None:
        raise InvalidInput(
            "Benchmarks need lm-evaluation-harness, which is not installed: `make eval`, or `pip install lm-eval`. "
            "Results from elsewhere come in by `studio benchmark import`."
        )


def _check_libraries(settings: Settings) -> None:
    """A setting that needs a library which is missing must be refused now, not in the run's process."""
    check_quantize(str(getattr(settings, "quantize", None) or "none"))
    if settings.NEEDS_HARNESS:
        check_harness()
    reporter = getattr(settings, "report_to", None) or "none"
    if reporter != "none" and find_spec(reporter) is None:
        raise InvalidInput(
            f"report_to={reporter} needs the package {reporter}, which is not installed: `pip install {reporter}`, "
            "or leave report_to out; the studio keeps the curves itself in any case."
        )


def _check_name(db: Database, home: Home | None, settings: Settings, promised: Collection[str] = ()) -> None:
    """A name that is taken must be refused now, not when the training is over."""
    name = getattr(settings, "name", None)
    if name is None:
        return
    if name in promised:
        raise Conflict(f"The run that is waited for will be named {name!r} too; choose another --name.")
    for noun, find in (("policy", get_policy), ("checkpoint", get_checkpoint)):
        try:
            find(db, name)
        except NotFound:
            continue
        raise Conflict(f"There is already a {noun} {name!r}; choose another --name.")
    if home is not None and (home.checkpoints / name).exists():
        raise Conflict(f"There is already a directory {home.checkpoints / name}; choose another --name.")
