"""The second half of a round: reward model and policy are trained, the policy is compared, the gate decides."""

from __future__ import annotations

from typing import Any

from feedback.store.models.benchmarks import list_benchmarks
from feedback.store.models.policies import get_champion, get_policy, promote_policy
from feedback.store.reports.comparisons import withdraw_comparisons
from feedback.tables import RunRow
from feedback.types import RoundState, RunState
from training.evaluation.gate import GateVerdict
from training.evaluation.gate_evidence import decide_policy
from training.evaluation.people import PEOPLE, asked_of_people, by_people
from training.models.base_files import parameters_on_disk
from training.rounds.collecting import SEEDS
from training.rounds.context import RoundContext, Step
from training.rounds.recipe import ROUND_REWARD, with_inputs
from training.settings.reward import RewardSettings
from training.settings.train import LARGE_MODEL

# Two reward models read the judgments: from 200 of them their mean is right a point more often than one alone. Of a
# large base one is trained: the second would double the longest stage of a round.
MEMBERS = {False: 2, True: 1}
# Replies per held-out prompt that make the test pairs of the reward model, and that compare two policies
CARD_SAMPLES = {False: 4, True: 2}
COMPARED_SAMPLES = {False: 2, True: 1}


def begin_training(context: RoundContext) -> Step:
    """The dataset is there: training is asked for at once."""
    step = train(context)
    return Step(RoundState.training, step.waits_for) if step.to is RoundState.frozen else step


def train(context: RoundContext) -> Step:
    """Train the reward model, where one is needed, then each method from what the one before made."""
    settings, dataset = context.settings, str(context.evidence["dataset"])
    reward = ""
    if settings.trains_reward:
        run = context.run("reward", "reward", _reward_config(context, dataset))
        if run.state is not RunState.succeeded:
            return context.stay(_training_words(run, "the reward model"))
        reward = context.evidence["reward"] = run.result["checkpoint"]
    parent = context.champion
    for number, step in enumerate(settings.methods):
        last = number == len(settings.methods) - 1
        name = context.name if last else step_name(context.name, number, step.method)
        given = {"parent": parent, "seed": (settings.seed + context.row.number) % SEEDS, "name": name}
        run = context.run(f"{number} {step.method}", step.method, with_inputs(step, dataset, reward, **given))
        if run.state is not RunState.succeeded:
            return context.stay(_training_words(run, step.method))
        parent = get_policy(context.db, run.result["policy"]).name
    context.evidence["policy"] = parent
    return Step(RoundState.evaluating, f"{parent} to be compared with {context.champion}")


def step_name(name: str, number: int, method: str) -> str:
    """What a training of a round makes that is not its last."""
    return f"{name}-{number + 1}-{method}"


def evaluate(context: RoundContext) -> Step:
    """Compare the new policy with the champion and with the start, measure the reward model, take the benchmarks."""
    if context.skips():
        return _skip_evaluation(context)
    waits_for = _compare(context) or _measure_reward(context) or _take_benchmarks(context)
    return context.stay(waits_for) if waits_for else Step(RoundState.gate, "the gate")


def decide(context: RoundContext) -> Step:
    """Promote, hold or reject: as the gate says, or as a person decides who was asked."""
    policy = str(context.evidence["policy"])
    if "gate" not in context.evidence:
        limits = context.settings.gate_limits
        context.evidence["gate"] = decide_policy(context.db, policy, context.champion, limits).as_json()
    verdict = context.evidence["gate"]["verdict"]
    chosen = context.evidence.get("decision", {}).get("choice")
    if context.skips():
        chosen = "hold"
    if context.settings.promote == "ask" and chosen is None:
        return context.stay(f"a person, to promote {policy} or to hold it; the gate says {verdict}")
    if chosen == "promote":
        promote_policy(context.db, policy)
        return Step(RoundState.promoted)
    if chosen is None and verdict == GateVerdict.promote:
        return Step(RoundState.promoted) if _take_over(context, policy) else Step(RoundState.held)
    return Step(RoundState.rejected if chosen is None and verdict == GateVerdict.reject else RoundState.held)


def _take_over(context: RoundContext, policy: str) -> bool:
    """Make the policy the champion, unless one that it was not compared with serves meanwhile."""
    serving = get_champion(context.db)
    made = get_policy(context.db, policy)
    if serving is not None and serving.id not in (context.row.champion_id, made.id):
        context.evidence["note"] = (
            f"{policy} is held: it was compared with {context.champion}, and {serving.name} is the champion now."
        )
        return False
    promote_policy(context.db, made.id)
    return True


def is_large(base: str) -> bool:
    """Whether a model has at least LARGE_MODEL parameters; True where its weights are absent."""
    parameters = parameters_on_disk(base)
    return parameters is None or parameters >= LARGE_MODEL


def _is_large(context: RoundContext) -> bool:
    return is_large(get_policy(context.db, context.row.champion_id).base)


def _reward_config(context: RoundContext, dataset: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "dataset": dataset,
        "seed": (context.settings.seed + context.row.number) % SEEDS,
        "members": MEMBERS[_is_large(context)],
        "name": f"{context.name}-reward",
    }
    if context.evidence["pairs"] < RewardSettings.FEWEST:  # its figures at the end of the round say what it is worth
        config["allow_few"] = True
    return config


def _training_words(run: RunRow, what: str) -> str:
    return f"training of {what}" if run.state.is_active else f"training of {what}, {run.state.value}"


def _compare(context: RoundContext) -> str:
    """The win rate over the champion, and for a rule over the policy of the first round; what is waited for, if any."""
    policy = str(context.evidence["policy"])
    if context.settings.judge == PEOPLE:
        return _ask_people(context, policy)
    opponents = {"over_champion": context.champion, "over_start": _start(context)}
    for figure, opponent in opponents.items():
        if figure == "over_start" and opponent == opponents["over_champion"]:
            context.evidence[figure] = context.evidence["over_champion"]
            continue
        config = {"a": policy, "b": opponent, **_judge(context), "prompts": context.settings.prompts}
        config |= {"samples": COMPARED_SAMPLES[_is_large(context)], "seed": context.settings.seed}
        run = context.run(f"evaluate {figure}", "evaluate", config)
        if run.state is not RunState.succeeded:
            return f"comparison of {policy} with {opponent} by {context.settings.judge}"
        context.evidence[figure] = run.result
    return ""


def _ask_people(context: RoundContext, policy: str) -> str:
    asked = asked_of_people(policy, context.champion, context.settings.prompts, context.seed % SEEDS)
    run = context.run("evaluate by people", "generate", asked)
    if run.state is not RunState.succeeded:
        return f"replies of {policy} and {context.champion} to compare"
    made = get_policy(context.db, policy)
    figures = by_people(context.db, made.id, context.row.champion_id)
    if figures is not None and figures["waiting"]:
        return f"people: {figures['waiting']} blind pairs of {policy} and {context.champion} to judge"
    context.evidence["over_champion"] = figures or {}  # none where both replied the same to every prompt
    return ""


def _skip_evaluation(context: RoundContext) -> Step:
    """Go to the gate with what was measured: runs are cancelled, and what people have not judged is withdrawn."""
    context.cancel_runs()
    made = get_policy(context.db, str(context.evidence["policy"]))
    if context.settings.judge == PEOPLE:
        withdraw_comparisons(context.db, made.id, context.row.champion_id)
        context.evidence["over_champion"] = by_people(context.db, made.id, context.row.champion_id) or {}
    return Step(RoundState.gate, "the gate")


def _start(context: RoundContext) -> str:
    return get_policy(context.db, str(context.settings.policy)).name


def _judge(context: RoundContext) -> dict[str, Any]:
    if context.settings.judge == ROUND_REWARD:
        return {"reward": context.evidence["reward"]}
    return {"oracle": context.settings.judge}


def _measure_reward(context: RoundContext) -> str:
    """How often the reward model agrees with the rule that judged; people's accuracy is that of its training."""
    if "reward" not in context.evidence or context.settings.by_people:
        return ""
    config = {
        "reward": context.evidence["reward"],
        "oracle": context.settings.annotator,
        "noise": context.settings.noise,
        "samples": CARD_SAMPLES[_is_large(context)],
        "prompts": context.settings.prompts,
        "seed": context.settings.seed,
    }
    run = context.run("reward card", "evaluate", config)
    if run.state is not RunState.succeeded:
        return f"measurement of reward model {context.evidence['reward']}"
    context.evidence["reward_card"] = run.result
    return ""


def _take_benchmarks(context: RoundContext) -> str:
    """Have the new policy take the tasks of the recipe, and the champion those it never took."""
    tasks = context.settings.benchmarks
    if not tasks:
        return ""
    taken = {row.task for row in list_benchmarks(context.db, policy_id=context.row.champion_id)}
    missing = context.evidence.setdefault("benchmarks_missing", [task for task in tasks if task not in taken])
    for policy, own in ((context.champion, missing), (str(context.evidence["policy"]), tasks)):
        if own:
            run = context.run(f"benchmark {policy}", "benchmark", {"policy": policy, "tasks": list(own)})
            if run.state is not RunState.succeeded:
                return f"benchmarks of {policy}"
    return ""
