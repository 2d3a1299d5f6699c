"""Benchmarks: a tiny policy really takes tasks of the harness, and two results are compared by what both were asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound, RunCancelled
from feedback.store.models.benchmarks import list_benchmarks, list_differing, list_scores, save_benchmark
from feedback.store.models.checkpoints import save_checkpoint
from feedback.store.models.policies import save_policy
from feedback.store.models.runs import save_run
from feedback.store.models.scorecards import save_scorecard
from feedback.tables import PolicyRow
from feedback.types import Benchmark, Checkpoint, Policy, Run, Scorecard
from tests.factories import keep_benchmark, make_policy, sample
from training.bundled import TASKS_DIR
from training.evaluation.benchmark_comparison import compare
from training.evaluation.gate import GateVerdict
from training.evaluation.gate_evidence import decide_policy, judge_taught
from training.evaluation.harness_report import from_report, read_report
from training.evaluation.paired_tests import PairedFinding
from training.methods import METHODS
from training.reporting.reporter import RunContext
from training.runs import queue, validation

MakeContext = Callable[..., RunContext]
CHOICE = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: choices
doc_to_target: right
metric_list: [{{metric: acc_norm}}, {{metric: acc}}]
"""
SPOKEN = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: generate_until
generation_kwargs: {{max_gen_toks: 4, until: ["\\n"]}}
doc_to_text: "{{{{q}}}}"
doc_to_target: answer
metric_list: [{{metric: exact_match}}]
filter_list:
  - {{name: first, filter: [{{function: take_first}}]}}
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tasks of one's own, their items beside them."""
    folder = tmp_path_factory.mktemp("tasks")
    choices = [{"q": f"{n} and 1?", "choices": [str(n), str(n + 1), "none"], "right": n % 3} for n in range(8)]
    spoken = [{"q": f"Say {n}.", "answer": str(n)} for n in range(4)]
    for name, shape, rows in (("sums", CHOICE, choices), ("speech", SPOKEN, spoken)):
        (folder / f"{name}.yaml").write_text(shape.format(name=name))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_policy_takes_tasks_of_ones_own_and_every_item_is_kept(
    db: Database, make_context: MakeContext, tiny_policy: PolicyRow, tasks: Path
) -> None:
    context = make_context("benchmark", {"policy": tiny_policy.id, "tasks": "sums, speech", "include": str(tasks)})
    result = METHODS["benchmark"].run(context)
    sums, speech = (next(row for row in list_benchmarks(db) if row.task == task) for task in ("sums", "speech"))
    assert result["benchmarks"] == {"sums": sums.id, "speech": speech.id}
    assert list(sums.means) == ["acc_norm", "acc"], "the task's own order: its main metric leads"
    assert list(speech.means) == ["exact_match,first"] and (sums.n, speech.n) == (8, 4)
    assert result["tasks"]["sums"] == {**sums.means, "n": 8}
    assert sums.run_id == context.run.id and sums.settings["num_fewshot"] == 0
    scores = list_scores(db, sums.id, sums.id, "acc")
    assert len(scores) == 8 and sum(a for a, _ in scores) / 8 == sums.means["acc"]


def test_a_run_that_was_killed_goes_on_with_the_next_task(
    db: Database, make_context: MakeContext, tiny_policy: PolicyRow, tasks: Path
) -> None:
    config = {"policy": tiny_policy.id, "include": str(tasks)}
    first = make_context("benchmark", {**config, "tasks": "sums"})
    (kept,) = METHODS["benchmark"].run(first)["benchmarks"].values()
    again = make_context("benchmark", {**config, "tasks": "sums,speech"}, run=first.run, attempt=2)
    assert METHODS["benchmark"].run(again)["benchmarks"]["sums"] == kept
    assert [row.task for row in list_benchmarks(db)] == ["speech", "sums"]


def test_what_the_harness_wrote_to_disk_comes_in_with_the_same_items(
    db: Database, make_context: MakeContext, tiny_policy: PolicyRow, tasks: Path, tmp_path: Path
) -> None:
    context = make_context("benchmark", {"policy": tiny_policy.id, "tasks": "sums", "include": str(tasks)})
    METHODS["benchmark"].run(context)
    (here,) = list_benchmarks(db)
    for place in ("elsewhere", "broken"):
        written_by_the_harness(tiny_policy.base, tasks, tmp_path / place)
    report, samples = read_report(tmp_path / "elsewhere")
    ((benchmark, items),) = from_report(report, samples, make_policy(db, "other").id).results
    there = save_benchmark(db, benchmark, items)
    assert there.means == here.means and there.higher_is_better == {"acc_norm": True, "acc": True}
    assert len(list_scores(db, here.id, there.id, "acc")) == 8
    (found,) = compare(db, here.policy_id, there.policy_id).comparisons
    assert found.metric == "acc_norm" and found.paired.difference == 0 and found.finding is PairedFinding.unclear
    assert items[0].asked.startswith("<|user|>0 and 1?") and items[0].answer in {"0", "1", "none"}

    (log,) = (tmp_path / "broken").rglob("samples_*.jsonl")
    log.write_text(log.read_text() + "{")
    with pytest.raises(InvalidInput, match=r"samples_sums_.*line 9"):
        read_report(tmp_path / "broken")
    log.unlink()
    with pytest.raises(InvalidInput, match="--log_samples"):
        read_report(tmp_path / "broken")
    with pytest.raises(NotFound, match="report of lm-eval"):
        read_report(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="no report of lm-eval"):
        read_report(tasks / "sums.jsonl")


def written_by_the_harness(base: str, tasks: Path, place: Path) -> None:
    """What ``lm_eval run --output_path PLACE --log_samples`` leaves."""
    import contextlib

    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from training.models.loading import load_base

    model, tokenizer = load_base(base, "cpu")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    with contextlib.chdir(tasks):
        report = simple_evaluate(
            model=lm, tasks=["sums"], task_manager=manager, apply_chat_template=True, bootstrap_iters=0
        )
    tracker = EvaluationTracker(output_path=str(place))
    samples = report.pop("samples")
    tracker.save_results_aggregated(results=report, samples=samples)
    for task, logged in samples.items():
        tracker.save_results_samples(task_name=task, samples=logged)


def test_what_was_asked_otherwise_is_not_compared(
    db: Database, make_context: MakeContext, tiny_policy: PolicyRow, tasks: Path
) -> None:
    METHODS["benchmark"].run(
        make_context("benchmark", {"policy": tiny_policy.id, "tasks": "sums", "include": str(tasks)})
    )
    other = save_policy(db, Policy(name="twin", base=tiny_policy.base))
    plain = {"policy": other.id, "tasks": "sums", "include": str(tasks), "chat_template": False}
    METHODS["benchmark"].run(make_context("benchmark", plain))
    keep_benchmark(db, tiny_policy.id, [1.0, 0.0], task="facts")
    keep_benchmark(db, other.id, [1.0, 1.0], task="facts")
    found = compare(db, tiny_policy.id, other.id)
    assert [one.task for one in found.comparisons] == ["facts"]
    (sentence,) = found.unlike
    assert "Both took sums" in sentence and "(8 and 8 items)" in sentence and "same settings" in sentence
    assert any(reason.words == sentence for reason in decide_policy(db, other.id).reasons)
    with pytest.raises(InvalidInput, match="with itself"):
        compare(db, other.id, other.id)


def test_the_gate_weighs_the_newest_results_and_who_judged(db: Database, tiny_policy: PolicyRow) -> None:
    child = save_policy(db, Policy(name="child", base=tiny_policy.base, parent_id=tiny_policy.id))
    assert decide_policy(db, child.id).verdict is GateVerdict.hold  # never measured
    figures = {"win_rate": 0.8, "low": 0.7, "high": 0.9, "n_prompts": 50}
    card = Scorecard(kind="win_rate", subject_id=child.id, against_id=tiny_policy.id, figures=figures)
    save_scorecard(db, card)
    assert decide_policy(db, child.id).verdict is GateVerdict.promote
    save_scorecard(db, card.model_copy(update={"figures": {**figures, "best_of": 8, "low": 0.1, "high": 0.2}}))
    assert decide_policy(db, child.id).verdict is GateVerdict.promote, "the best of many replies is another question"

    for policy, right in ((tiny_policy.id, 400), (child.id, 300)):
        keep_benchmark(db, policy, [float(number < right) for number in range(400)])
    decision = decide_policy(db, child.id)
    assert decision.verdict is GateVerdict.reject
    assert any("sums lost 25.0 points (1.000 to 0.750, 400 items)" in reason.words for reason in decision.reasons)
    (found,) = compare(db, child.id, tiny_policy.id).comparisons
    assert found.finding is PairedFinding.worse and found.paired.lost == 100
    assert len(list_differing(db, found.a.id, found.b.id, "acc", limit=1000)) == 100
    with pytest.raises(InvalidInput, match="no parent"):
        decide_policy(db, tiny_policy.id)
    keep_benchmark(db, child.id, [1.0, 1.0])
    assert decide_policy(db, child.id).verdict is GateVerdict.reject, "a newer result of two items hides no older one"


def test_a_judge_that_taught_an_ancestor_is_no_independent_one(
    db: Database, tiny_policy: PolicyRow, make_context: MakeContext
) -> None:
    save_checkpoint(db, Checkpoint(name="rm1", kind="reward", path="p", base="b"))
    run = save_run(db, Run(method="ppo", config={"reward": "rm1"}))
    taught = save_policy(db, Policy(name="taught", base=tiny_policy.base, parent_id=tiny_policy.id, run_id=run.id))
    child = save_policy(db, Policy(name="child", base=tiny_policy.base, parent_id=taught.id))
    for policy in (taught, child):
        assert judge_taught(db, policy.id, "reward: rm1") and not judge_taught(db, policy.id, "reward:rm2")
        assert not judge_taught(db, policy.id, "rm1"), "a rule that is called as a reward model is none"
    assert not judge_taught(db, tiny_policy.id, "reward:rm1")
    figures = {"win_rate": 0.8, "low": 0.7, "high": 0.9, "n_prompts": 50}
    card = Scorecard(kind="win_rate", subject_id=child.id, against_id=tiny_policy.id, figures=figures)
    save_scorecard(db, card.model_copy(update={"settings": {"reward": "rm1"}}))
    assert decide_policy(db, child.id).verdict is GateVerdict.hold
    # A rule speaks before a reward model, and taught nobody.
    save_scorecard(db, card.model_copy(update={"settings": {"oracle": "warm"}}))
    assert decide_policy(db, child.id).verdict is GateVerdict.promote


def test_samples_that_tell_nothing_item_by_item_are_refused() -> None:
    perplexity = sample(0, 0.0, metrics=["word_perplexity"], word_perplexity=[-3.2, 5])
    with pytest.raises(InvalidInput, match="wiki has no score of its items"):
        from_report({}, {"wiki": [perplexity]}, "pol-x")
    both = from_report({}, {"wiki": [perplexity], "sums": [sample(0, 1.0), sample(1, 1.0)]}, "pol-x")
    assert both.left_out == ["wiki"] and [one.task for one, _ in both.results] == ["sums"]
    with pytest.raises(InvalidInput, match="doc_hash"):
        from_report({}, {"old": [{**sample(0, 1.0), "doc_hash": ""}]}, "pol-x")
    with pytest.raises(InvalidInput, match="empty has no score"):
        from_report({}, {"empty": []}, "pol-x")
    twice = [sample(0, 1.0), sample(0, 0.0), sample(1, 1.0, arguments=[["\0" + "x" * 2000]])]
    config = {"metric_list": [{"metric": "perplexity"}, {"metric": "acc"}]}
    lambada = sample(0, 1.0, metrics=["perplexity", "acc"], perplexity=-1.9)
    ((kept, _),) = from_report({"configs": {"lambada": config}}, {"lambada": [lambada]}, "pol-x").results
    assert kept.means == {"acc": 1.0}, "an item's perplexity is a log-likelihood: less would be more"
    numpys = sample(0, 1.0, acc=np.bool_(True))
    uncounted = sample(1, 1.0, acc=float("nan"))
    ((kept, _),) = from_report({"higher_is_better": {"a": {"acc": None}}}, {"a": [numpys, uncounted]}, "pol-x").results
    assert kept.means == {"acc": 1.0} and kept.higher_is_better == {"acc": True}
    gsm = {"metric_list": [{"metric": "exact_match"}], "filter_list": [{"name": "strict"}, {"name": "flexible"}]}
    said = [
        sample(0, 1.0, metrics=["exact_match"], exact_match=score, filter=name)
        for name, score in (("flexible", 1.0), ("strict", 0.0))
    ]
    ((kept, _),) = from_report({"configs": {"gsm": gsm}}, {"gsm": said}, "pol-x").results
    assert list(kept.means) == ["exact_match,strict", "exact_match,flexible"] and kept.n == 1
    ((benchmark, items),) = from_report({}, {"sums": twice}, "pol-x").results
    assert isinstance(benchmark, Benchmark) and len({item.item for item in items}) == 3
    assert len(items[2].asked) == 1000 and items[2].asked.startswith("…") and "\0" not in items[2].asked


@pytest.mark.slow
def test_what_cannot_be_taken_is_said_before_a_model_is_loaded(
    db: Database, make_context: MakeContext, tiny_policy: PolicyRow, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"policy": tiny_policy.id, "tasks": "sums", "include": str(tasks / "nowhere")}
    with pytest.raises(InvalidInput, match="no folder"):
        METHODS["benchmark"].run(make_context("benchmark", missing))
    unknown = {"policy": tiny_policy.id, "tasks": "sums,no_such_task", "include": str(tasks)}
    with pytest.raises(NotFound, match="no_such_task"):
        METHODS["benchmark"].run(make_context("benchmark", unknown))
    assert not list_benchmarks(db)
    monkeypatch.setattr(validation, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="make eval"):
        queue.submit(db, "benchmark", {"policy": tiny_policy.id, "tasks": "sums"})


def test_a_cancel_is_heard_between_two_batches(
    db: Database, make_context: MakeContext, tiny_policy: PolicyRow, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(
        "benchmark", {"policy": tiny_policy.id, "tasks": "sums", "include": str(tasks), "batch_size": 2}
    )
    said: list[str] = []

    def report(fraction: float, text: str) -> None:
        said.append(text)
        if len(said) == 3:
            raise RunCancelled("asked to stop")

    monkeypatch.setattr(context.progress, "report", report)
    with pytest.raises(RunCancelled):
        METHODS["benchmark"].run(context)
    assert said[0] == "sums: 0 of 24 answers" and said[2] == "sums: 4 of 24 answers"
    assert not list_benchmarks(db)


def test_the_facts_are_what_their_tables_write() -> None:
    from training.smollm2.benchmark import TASK, items

    kept = [json.loads(line) for line in (TASKS_DIR / f"{TASK}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert kept == list(items()) and len(kept) == 400
    assert all(len(set(row["answers"])) == 4 for row in kept)
    right_at = Counter(row["right"] for row in kept)
    assert set(right_at) == {0, 1, 2, 3} and max(right_at.values()) < 130  # no place wins by itself
    answers = {row["question"]: row["answers"][row["right"]] for row in kept}
    assert answers["What is the capital of the Netherlands?"] == "Amsterdam"
    assert answers["Which month comes right before January?"] == "December"
    assert answers["Which day comes right after Sunday?"] == "Monday"
    for row in kept:
        if row["group"] == "sums":
            a, b = (int(word) for word in row["question"].rstrip("?").split() if word.isdigit())
            assert row["answers"][row["right"]] == str(a + b)


def test_the_task_that_comes_with_the_studio_is_what_its_corpus_writes() -> None:
    from training.starter.benchmark import items

    kept = [json.loads(line) for line in (TASKS_DIR / "starter_topic.jsonl").read_text(encoding="utf-8").splitlines()]
    assert kept == list(items())
    assert len({row["request"] for row in kept}) == 600 and {row["right"] for row in kept} == {0, 1, 2, 3}
    offered = {
        json.loads(line)["messages"][0]["content"]
        for line in (TASKS_DIR.parent / "prompts" / "work.jsonl").read_text(encoding="utf-8").splitlines()
    }
    assert not offered & {row["request"] for row in kept}, "no prompt that people judge is an item"
