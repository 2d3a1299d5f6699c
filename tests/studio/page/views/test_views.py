"""Values to markup and words: escaping without a gap, and texts that say what is the case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.errors import InvalidInput
from feedback.labeling.assignment import Task
from feedback.tables import CheckpointRow, DatasetRow, MetricRow, PolicyRow, RunRow, ScorecardRow
from feedback.types import MatchupKind, RunState
from studio.page import html
from studio.page.text import ago, duration, error_text
from studio.page.views import datasets as datasets_view
from studio.page.views import policies as policies_view
from studio.page.views.labeling import label as label_view
from studio.page.views.training import curves as curves_view
from studio.page.views.training import forms as forms_view
from studio.page.views.training import runs as runs_view
from studio.services.labeling import LabelCounts
from studio.services.policies import PolicyExport, PolicySummary
from training.methods import METHODS
from training.settings.parsing import Setting, describe, parse_settings, settings_class

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Reader(HTMLParser):
    """Collects the text and the tags of a piece of markup."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def task(*responses: str) -> Task:
    return Task("lea-1", "mat-1", MatchupKind.pair, [{"role": "user", "content": "Hi"}], list(responses), NOW, "local")


@given(st.text())
def test_escaped_text_reads_back_as_itself_and_holds_no_markup(text: str) -> None:
    escaped = html.escape(text)
    read = Reader(escaped)
    assert read.tags == []
    assert not set("<>\"'{}$`@") & set(escaped.replace("&", "").replace(";", "")) or "&" in escaped
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    harmless = [c for c in plain if c in "\t\n" or (c.isprintable() and not 0xD800 <= ord(c) < 0xE000)]
    assert all(c in read.text for c in harmless)


# What a text may bring about, beyond the frame that every pair has.
TAGS_OF_TEXT = """p br ul ol li blockquote pre code table thead tbody tr th td strong em del span div
math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup mover munder munderover mtable mtr mtd"""


@given(st.text(), st.text(alphabet="ab<>&\"'*_`$\\^{}[]()!|-#~\n 1.=:/x"))
def test_a_pair_has_only_allowed_tags_whatever_the_replies_say(left: str, right: str) -> None:
    frame = set(Reader(label_view.pair(task("a", "b"))).tags)
    assert set(Reader(label_view.pair(task(left, right))).tags) <= frame | set(TAGS_OF_TEXT.split())


def test_what_could_hide_or_reverse_text_is_made_visible_or_dropped() -> None:
    assert html.escape("a\x00b\x1b") == "a\ufffdb\ufffd"
    assert html.escape("user\u202egnp.exe") == "usergnp.exe"
    assert html.escape("x\ud800y") == "x\ufffdy"
    assert html.escape("${a}{{b}}@children`") == "&#36;&#123;a&#125;&#123;&#123;b&#125;&#125;&#64;children&#96;"


def test_attributes_are_escaped_and_may_be_left_out() -> None:
    made = html.element("a", "x", href='"><script>', class_="c", hidden=True, title=None)
    assert made == '<a href="&quot;&gt;&lt;script&gt;" class="c" hidden>x</a>'


def test_a_pair_carries_its_lease_and_nothing_else_about_it() -> None:
    shown = label_view.pair(task("one", "two"))
    assert 'data-lease="lea-1"' in shown
    assert "mat-1" not in shown
    assert shown.index("one") < shown.index("two")


def test_only_a_pair_has_two_headings_to_swipe_between() -> None:
    shown = label_view.pair(task("one", "two"))
    assert shown.count('class="reply-tab side-') == 2 and shown.count('class="reply-card side-') == 2
    ranked = label_view.pair(task("one", "two", "three"))
    assert "reply-tab" not in ranked and "side-left" not in ranked


def test_the_counter_survives_an_empty_pool() -> None:
    assert 'aria-valuenow="0"' in label_view.label_status(LabelCounts(0, 0))
    assert 'aria-valuenow="25"' in label_view.label_status(LabelCounts(1, 3))
    assert 'data-total="3"' in label_view.label_status(LabelCounts(1, 3, 2)), "skips too"
    assert "1 judged by you2 skipped3 open for you" in Reader(label_view.label_status(LabelCounts(1, 3, 2))).text
    others = LabelCounts(1, 0, pool=3)
    assert "for others" in label_view.empty_pool(None, others) and "for others" not in label_view.empty_pool(None)


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (None, "Nothing to judge"),
        (RunRow(method="generate", state=RunState.queued), "waits for the worker"),
        (RunRow(method="generate", state=RunState.running, progress=0.5, progress_text="20 of 50"), "20 of 50"),
        (RunRow(method="generate", state=RunState.failed, error="No space left."), "No space left."),
        (RunRow(method="generate", state=RunState.interrupted), "could not be filled"),
        (RunRow(method="generate", state=RunState.succeeded, result={"matchups": 0}), "No new pairs"),
        (RunRow(method="generate", state=RunState.succeeded, result={"matchups": 9}), "Nothing to judge"),
        (RunRow(method="generate", state=RunState.cancelled), "Nothing to judge"),
    ],
)
def test_an_empty_pool_says_why(fill: RunRow | None, says: str) -> None:
    assert says in Reader(label_view.empty_pool(fill)).text


@pytest.mark.parametrize(
    "fill",
    [
        None,
        RunRow(method="generate", state=RunState.failed, error="No space left."),
        RunRow(method="generate", state=RunState.succeeded, result={"matchups": 0}),
    ],
)
def test_an_empty_pool_says_who_can_fill_it(fill: RunRow | None) -> None:
    assert "researcher" in Reader(label_view.empty_pool(fill)).text


def test_runs_say_their_state_in_words() -> None:
    run = RunRow(
        id="run-1", method="dpo", state=RunState.running, progress=0.4, config={"dataset": "d"},
        started_at=NOW - timedelta(seconds=200),
    )  # fmt: skip
    text = Reader(runs_view.runs_table([run], None, NOW)).text
    assert all(part in text for part in ("run-1", "dpo", "running 40 %", "3 minutes ago", "3 min 20 s"))
    assert "No runs yet" in runs_view.runs_table([], None, NOW)
    failed = RunRow(id="run-2", method="dpo", state=RunState.failed, error="Loss is nan; lower the rate.")
    assert "Loss is nan; lower the rate." in runs_view.run_detail(failed, [], NOW)


def test_runs_are_told_apart_by_name_and_origin() -> None:
    given = RunRow(id="run-aaaa1111", method="ppo", config={"name": "warmer", "parent": "pol-1"})
    made = RunRow(id="run-bbbb2222", method="dpo", config={"dataset": "dat-1"}, result={"policy": "dpo-7"})
    bare = RunRow(id="run-cccc3333", method="evaluate", config={"a": "x", "b": "y"})
    names = {"pol-1": "starter", "dat-1": "round-1"}
    text = Reader(runs_view.runs_table([given, made, bare], None, NOW, names)).text
    assert all(part in text for part in ("warmer", "run-aaaa1111", "starter", "dpo-7", "round-1", "run-cccc3333"))
    assert [words for words, _ in runs_view.run_choices([given, made, bare], names)] == [
        "warmer aaaa: ppo, starter, queued",
        "dpo-7 bbbb: dpo, round-1, queued",
        "evaluate cccc: x against y, queued",
    ]
    assert "warmer · ppo · run-aaaa1111" in Reader(runs_view.run_detail(given, [], NOW, names)).text


@pytest.mark.parametrize("state", list(RunState))
def test_what_can_be_done_with_a_run_follows_its_state(state: RunState) -> None:
    run = RunRow(method="dpo", state=state)
    assert not (runs_view.can_cancel(run) and runs_view.can_resume(run))
    assert runs_view.can_resume(run) == (state in {RunState.failed, RunState.cancelled, RunState.interrupted})


def test_a_run_whose_settings_will_not_do_is_not_offered_again() -> None:
    run = RunRow(
        id="run-1", method="ppo", state=RunState.failed, result={"failure": "data"},
        error="The reward checkpoint 'judge' was trained on another base.",
    )  # fmt: skip
    text = Reader(runs_view.run_detail(run, [], NOW)).text
    assert not runs_view.can_resume(run) and "start another run" in text
    assert "What it was given will not do" in text and "The data" not in text
    run.result = {"failure": "memory"}
    assert runs_view.can_resume(run) and "start another run" not in Reader(runs_view.run_detail(run, [], NOW)).text


def test_curves_are_split_by_what_they_measure() -> None:
    points = [
        MetricRow(run_id="r", step=step, name=name, value=float(step))
        for step in (0, 1)
        for name in ("loss", "accuracy", "learning_rate", "margin")
    ]
    losses, shares, further = curves_view.plot_frames({"run": points}, "margin")
    assert list(losses.columns) == ["step", "value", "curve"]
    assert (set(losses["curve"]), set(shares["curve"])) == ({"Loss"}, {"Accuracy"})
    assert set(further["curve"]) == {"Margin"} and curves_view.curve_names({"run": points}) == [
        "learning_rate",
        "margin",
    ]
    assert runs_view.latest_metrics(points)["margin"] == 1.0
    assert len(curves_view.plot_frames({"run": []})[0]) == 0


def test_each_method_shows_first_what_tells_most_about_it() -> None:
    def shown(method: str, *names: str) -> list[Any]:
        series = {"run": [MetricRow(run_id="r", step=1, name=name, value=1.0) for name in names]}
        further = curves_view.usual_curve(curves_view.curve_names(series, method))
        frames = curves_view.plot_frames(series, further, method)
        titles = [plot.title for plot in curves_view.first_plots(method)]
        return [*zip(titles, (list(frame["curve"]) for frame in frames[:2]), strict=True), further]

    assert shown("dpo", "loss", "entropy", "accuracy", "margin") == [
        ("Loss", ["Loss"]), ("Accuracy", ["Accuracy"]), "margin"
    ]  # fmt: skip
    assert shown("kto", "loss", "bad_reward", "good_reward", "margin") == [
        ("Loss", ["Loss"]), ("Reward", ["Bad reward", "Good reward"]), "margin"
    ]  # fmt: skip
    assert shown("rloo", "loss", "reward", "entropy", "kl_per_token", "reply_tokens") == [
        ("Reward", ["Reward"]), ("Nats per token", ["KL per token"]), "reply_tokens"
    ]  # fmt: skip
    assert shown("ppo", "policy_loss", "score", "kl", "canary_score")[:2] == [
        ("Score", ["Score", "Canary score"]), ("Nats per reply", ["KL"])
    ]  # fmt: skip
    points = [MetricRow(run_id="r", step=1, name=name, value=1.0) for name in ("loss", "entropy", "reward")]
    text = Reader(runs_view.run_detail(RunRow(method="rloo", state=RunState.running), points, NOW)).text
    assert text.index("Reward") < text.index("Loss")


def test_what_was_measured_at_the_end_is_not_taken_for_the_last_batch() -> None:
    points = [MetricRow(run_id="r", step=60, name=name, value=0.8125) for name in ("loss", "accuracy")]
    result = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.94, "train_accuracy": 0.97}
    run = RunRow(method="reward", state=RunState.succeeded, result=result)
    text = Reader(runs_view.run_detail(run, points, NOW)).text
    assert "Accuracy0.9 [0.85, 0.94]" in text and "Accuracy low" not in text
    assert text.index("0.9 [") < text.index("At step 60") < text.index("0.8125")
    card = {"win_rate": 0.75, "low": 0.7, "high": 0.8, "kl": 2.0}
    shown = runs_view.run_detail(RunRow(method="evaluate", state=RunState.succeeded, result=card), [], NOW)
    assert "Win rate0.75 [0.7, 0.8]" in Reader(shown).text
    gate = {"verdict": "HOLD", "reasons": [{"answer": "unclear", "words": "It wins half."}]}
    taken = {"tasks": {"sums": {"acc": 0.5, "n": 8}}, "benchmarks": {"sums": "ben-1"}, "gate": gate}
    text = Reader(runs_view.run_detail(RunRow(method="benchmark", result=taken), [], NOW)).text
    assert "Sums, acc0.5" in text and "HOLD unclear: It wins half." in text and "ben-1" not in text


def test_figures_say_of_which_step_they_are_and_what_they_mean() -> None:
    points = [MetricRow(run_id="r", step=20, name=name, value=1.0) for name in ("canary_score", "canary_kl")]
    points += [MetricRow(run_id="r", step=23, name=name, value=2.0) for name in ("score", "kl_k3", "divergence")]
    shown = runs_view.run_detail(RunRow(method="ppo", state=RunState.running), points, NOW)
    text = Reader(shown).text
    assert "At step 23" in text and "Canary score, step 201" in text and "Score, step" not in text
    for told in ("Canary …", "kept apart from learning", "KL k3", "never below 0", "Divergence", "nats per token"):
        assert told in text.split("What these figures mean")[1]
    result = {"best_tokens": 31.4, "best_proxy": 1.5, "best_repetition": -0.0, "best_iteration": 4, "best_of_kl": 0.6}
    text = Reader(runs_view.run_detail(RunRow(method="ppo", state=RunState.succeeded, result=result), [], NOW)).text
    assert "Tokens of the kept policy31.4" in text and "Repetition of the kept policy0" in text
    assert "Training score of the kept policy1.5" in text and "Best of KL0.6" in text and "Best tokens" not in text
    assert "What these figures mean" not in runs_view.run_detail(RunRow(method="generate"), [], NOW)


def test_a_resumed_run_claims_no_progress_it_does_not_know() -> None:
    run = RunRow(
        id="run-1", method="ppo", state=RunState.running, attempt=2, started_at=NOW - timedelta(seconds=28)
    )  # fmt: skip
    card, table = (
        Reader(made).text for made in (runs_view.run_detail(run, [], NOW), runs_view.runs_table([run], None, NOW))
    )
    assert "0 %" not in card + table and "goes on from the last saved state" in card
    assert "28 s, attempt 2 alone" in card and "28 s, attempt 2 alone" in table
    run.progress, run.progress_text = 0.5, "iteration 20 of 40"
    assert "running 50 %" in Reader(runs_view.run_detail(run, [], NOW)).text


@pytest.mark.parametrize(("last", "step"), [(0, 1), (8, 1), (9, 2), (17, 5), (90, 20), (300, 50), (801, 200)])
def test_ticks_are_whole_steps_and_few(last: int, step: int) -> None:
    assert curves_view.tick_step(last) == step


def test_the_curves_of_two_runs_are_lines_of_one_figure() -> None:
    def points(run: str, steps: int) -> list[MetricRow]:
        return [MetricRow(run_id=run, step=step, name="loss", value=float(step)) for step in range(1, steps + 1)]

    frame, *_ = curves_view.plot_frames({"dpo <b>one</b>": points("a", 3), "dpo two": points("b", 4)})
    drawn = curves_view.figure(frame, "Loss")
    assert [(line.name, list(line.x)) for line in drawn.data] == [
        ("Loss, dpo &lt;b&gt;one&lt;/b&gt;", [1, 2, 3]),
        ("Loss, dpo two", [1, 2, 3, 4]),
    ]
    assert len({line.line.color for line in drawn.data}) == 2 and drawn.layout.xaxis.dtick == 1
    assert curves_view.figure(frame[:0], "Loss") is None


def test_a_failed_run_says_why_and_hides_the_traceback_behind_a_click() -> None:
    run = RunRow(
        id="run-1", method="dpo", state=RunState.failed, config={"dataset": "d", "epochs": 2},
        error="The run ran out of memory: lower micro_batch (now 4).", result={"failure": "memory"},
    )  # fmt: skip
    shown = runs_view.run_detail(run, [], NOW, traceback="Traceback (most recent call last):\n  <b>\nMemoryError")
    text = Reader(shown).text
    assert "Out of memory" in text and "lower micro_batch (now 4)" in text and "Failure" not in text
    assert text.index("Last traceback") < text.index("MemoryError") and "<b>" not in shown
    assert "studio train dpo --dataset d --set epochs=2" in text
    assert "details" not in Reader(runs_view.run_detail(run, [], NOW)).text.lower().split("last traceback")


def test_sample_replies_are_shown_where_they_change() -> None:
    run = RunRow(id="run-1", method="dpo", state=RunState.running)
    looks = [(0, [("Hi <i>", "one")]), (5, [("Hi <i>", "one")]), (10, [("Hi <i>", "two")])]
    text = Reader(runs_view.run_detail(run, [], NOW, looks=looks)).text
    assert "Hi <i>" in text and "Step 0" in text and "Step 10" in text and "Step 5" not in text
    assert "up to step 10" in text


def test_a_win_rate_never_comes_alone() -> None:
    card = ScorecardRow(
        kind="win_rate", subject_id="p", settings={"oracle": "warm"},
        figures={"win_rate": 0.735, "low": 0.66, "high": 0.81, "n_prompts": 150},
    )  # fmt: skip
    text = Reader(policies_view.win_rate(card, "starter")).text
    assert all(part in text for part in ("73.5 %", "over starter", "66 % to 81 %", "n = 150", "warm"))
    assert "not measured" in policies_view.win_rate(None, None)


def test_the_lineage_reads_from_the_policy_to_the_base() -> None:
    base = {"policy": {"name": "starter", "base": "/models/starter"}, "run": None, "parent": None}
    lineage = {
        "policy": {"name": "child", "base": "/models/starter"},
        "run": {"id": "run-1", "method": "dpo"},
        "dataset": {"name": "round-1", "hash": "abcdef0123456789", "counts": {"pairs": 11}},
        "judgments": {"count": 12, "by_source": {"human": 12}, "annotators": {"ann": 12}},
        "judged_policies": {"starter": 24},
        "parent": base,
    }
    summary = PolicySummary(PolicyRow(name="child", base="b"), False, "starter", "round-1", None, None)
    text = Reader(policies_view.policy_detail(summary, lineage, [])).text
    places = [text.index(part) for part in ("run-1", "round-1: 11 pairs", "ann (12): 12 judgments", "starter (24)")]
    assert places == sorted(places)
    assert text.rindex("/models/starter") > places[-1]
    scored = lineage | {
        "run": {"id": "run-1", "method": "ppo"},
        "prompts_only": True,
        "rewards": [lineage | {"checkpoint": {"name": "judge"}}],
    }
    text = Reader(policies_view.policy_detail(summary, scored, [])).text
    assert text.index("with the prompts of dataset round-1") < text.index("reward model judge") < text.index("11 pairs")
    assert text.count("ann (12): 12 judgments") == 1
    by_rule = lineage | {"prompts_only": True, "reward_function": "no_repetition"}
    text = Reader(policies_view.policy_detail(summary, by_rule, [])).text
    assert "the function no_repetition" in text and "judgments" not in text


def test_a_form_has_a_field_for_every_setting_but_those_chosen_elsewhere() -> None:
    fields = {field.name: field for field in forms_view.form_fields(describe("dpo"))}
    assert set(fields) == {setting.name for setting in describe("dpo")} - {"dataset", "parent", "name", "dry_run"}
    assert fields["epochs"].widget == "integer"
    assert fields["beta"].widget == "number" and fields["beta"].simple
    assert fields["schedule"].widget == "choice" and "cosine" in fields["schedule"].choices
    assert fields["learning_rate"].widget == "text", "a number field cannot be left empty"
    assert "1 to 100" in fields["epochs"].info


def test_a_form_offers_the_choices_as_they_are() -> None:
    spaced = Setting("tone", "choice", "warm, kind", "How it sounds.", choices=("warm, kind", "cold"))
    assert forms_view.form_fields([spaced])[0].choices == ("warm, kind", "cold")


@pytest.mark.parametrize("method", [name for name, known in METHODS.items() if known.kind == "train"])
def test_every_training_method_has_a_whole_form(method: str) -> None:
    fields = {field.name: field for field in forms_view.form_fields(describe(method))}
    assert set(fields) == set(settings_class(method).model_fields) - {"dataset", "parent", "name", "dry_run"}
    for field in fields.values():
        kinds = ("integer", "number", "choice", "toggle", "existing", "text")
        assert field.info.endswith(".") and field.widget in kinds
        # What names a reward model or a reward function is chosen from those there are, whatever the method calls it
        names_one = "reward" in field.name.split("_") and field.name != "reward_weight"
        assert (field.widget == "existing") == names_one == bool(field.refers)
        assert field.widget != "choice" or field.default in field.choices


def test_the_best_of_several_replies_is_not_taken_for_the_policys_own() -> None:
    card = ScorecardRow(
        kind="win_rate",
        subject_id="p",
        settings={"oracle": "warm"},
        figures={"win_rate": 0.8, "low": 0.7, "high": 0.9, "n_prompts": 9, "best_of": 4},
    )
    assert "80.0 %</strong> over start by its best of 4 replies" in policies_view.win_rate(card, "start")


def test_only_what_was_changed_is_said() -> None:
    forms = {name: forms_view.form_fields(describe(name)) for name in ("reward", "dpo")}
    values = [field.default for fields in forms.values() for field in fields]
    assert forms_view.settings_of(forms, "dpo", values) == {}
    place = len(forms["reward"]) + [field.name for field in forms["dpo"]].index("beta")
    values[place] = 0.3
    assert forms_view.settings_of(forms, "dpo", values) == {"beta": 0.3}
    assert forms_view.settings_of(forms, "reward", values) == {}
    with pytest.raises(InvalidInput):
        forms_view.settings_of(forms, "none", values)


def test_what_a_field_names_is_chosen_from_what_there_is() -> None:
    rewards = [
        CheckpointRow(name=name, kind="reward", path="p", base="b", removed_at=removed)
        for name, removed in (("kind", None), ("gone", NOW), ("short", None))
    ]
    choices = forms_view.existing_choices(rewards, ["keyword"])
    assert choices["reward models"] == [("kind", "kind"), ("short", "short")] == choices["reward model"]
    assert choices["reward function"] == [("keyword", "keyword")]
    fields = {field.name: field for field in forms_view.form_fields(describe("rloo"))}
    assert fields["reward"].several and not fields["reward_function"].several
    forms = {"rloo": list(fields.values())}
    filled = {field.name: field.default for field in fields.values()} | {"reward": ["kind", "short"]}
    said = forms_view.settings_of(forms, "rloo", list(filled.values()))
    assert said == {"reward": "kind,short"} and parse_settings("rloo", said)
    assert forms_view.settings_of(forms, "rloo", list((filled | {"reward": []}).values())) == {}


def test_an_unforeseen_error_tells_nothing_of_its_inside() -> None:
    assert error_text(InvalidInput("use <b>")) == "use &lt;b&gt;"
    assert "secret" not in error_text(RuntimeError("secret path"))


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0, "just now"), (59, "just now"), (60, "1 minute ago"), (7_300, "2 hours ago"), (200_000, "2 days ago")],
)
def test_moments_are_told_by_their_distance(seconds: int, says: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == says


def test_spans_are_told_in_units_that_fit() -> None:
    assert ago(None, NOW) == "not yet"
    assert duration(None, NOW) == "—"
    assert duration(NOW - timedelta(seconds=8), NOW) == "8 s"
    assert duration(NOW - timedelta(seconds=7_500), NOW) == "2 h 5 min"


def test_a_dataset_says_what_it_left_out() -> None:
    row = DatasetRow(name="d", hash="ab" * 32, counts={"pairs": 3}, dropped={"tie": 2, "skip": 0})
    text = Reader(datasets_view.dataset_detail(row, [])).text
    assert "2 × tie" in text
    assert "skip" not in text
    assert "No dataset yet" in datasets_view.datasets_table([], None, NOW)


def test_a_reply_that_was_cut_says_so() -> None:
    shown = label_view.pair(replace(task("Read a boo", "Read a book."), cut=(True, False)))
    assert shown.count("cut-note") == 1
    assert shown.index("reached its length limit") < shown.index("Read a book.")
    assert "cut-note" not in label_view.pair(task("Read a boo", "Read a book."))


def test_exports_tell_how_far_they_are_and_where_the_archive_is() -> None:
    policy = PolicyRow(id="pol-1", name="mine", base="b")

    def shown(state: RunState, *, is_there: bool = False, form: str = "gguf", **fields: Any) -> str:
        run = RunRow(method="export", state=state, **fields)
        return policies_view.exports_panel(policy, [PolicyExport(form, "q8_0", run, is_there)])

    assert policies_view.exports_panel(policy, []) == ""
    assert "GGUF file, Q8_0: waits for the worker" in Reader(shown(RunState.queued)).text
    assert "40 %, merging." in Reader(shown(RunState.running, progress=0.4, progress_text="merging")).text
    done = shown(RunState.succeeded, is_there=True, result={"bytes": 3_000_000, "checks": ["97 % of tokens."]})
    assert "97 % of tokens." in done and "Download (3.0 MB)" in done
    assert 'href="api/policies/pol-1/export?form=gguf&amp;quantization=q8_0"' in done
    assert 'download="mine-gguf-q8_0.zip"' in done
    error = "It has no adapter. `--as merged` exports its weights."
    failed = Reader(shown(RunState.failed, form="adapter", error=error)).text
    assert "PEFT adapter: failed: It has no adapter. “Merged model” exports its weights." in failed
    assert "earlier archive" in shown(RunState.failed, is_there=True, error="The disk is full.")
    assert "export it again" in shown(RunState.succeeded, result={})


def test_reasoning_is_folded_above_its_reply_and_escaped_like_it() -> None:
    hostile = "<script>alert(1)</script> & so on"
    shown = label_view.pair(replace(task("Yes.", "No."), reasoning=(None, hostile)))
    assert shown.count('<details class="reasoning"><summary>Reasoning</summary>') == 1
    assert shown.index("Yes.") < shown.index("reasoning") < shown.index("No.")
    assert "<script" not in shown and hostile in Reader(shown).text
    assert shown.count('class="model-text"') == label_view.pair(task("Yes.", "No.")).count('class="model-text"')
    ranked = replace(task("a", "b", "c"), kind=MatchupKind.rank, reasoning=("x", "y", None))
    assert label_view.pair(ranked).count("<summary>Reasoning</summary>") == 2
    assert "<details" not in label_view.pair(task("Yes.", "No."))


def test_a_dataset_says_how_many_pairs_hold_a_cut_reply() -> None:
    row = DatasetRow(name="d", hash="h", filters={}, counts={"pairs": 3}, dropped={"tie": 2, "cut_reply": 1})
    shown = datasets_view.dataset_detail(row, [])
    assert "1 pair holds a reply that was cut at its length limit" in shown
    assert "2 × tie" in shown.lower() and "cut reply" not in shown.lower()
    assert "1 of them hold a reply that was cut" in datasets_view.frozen_text(row, None)
