"""A model before it is added: what works with it, in how much memory, and what to mind."""

from __future__ import annotations

from dataclasses import replace

from feedback.errors import NotFound
from feedback.tables import PolicyRow
from studio.page.views import model_report as model_view
from training.checkpoints.base_check import Examination
from training.checkpoints.registration import Added
from training.model_check.report import MethodOutlook, ModelReport
from training.plain_templates import PLAIN_TEMPLATES

WORKS = MethodOutlook("generate", True, "", 600, None)
SLOW = MethodOutlook("dpo", True, "", 1_055, 12.4)
FAILS = MethodOutlook("reward", False, "it has no <scores>", 900, None)
REPORT = ModelReport(
    base="<b>owner</b>/name",
    architecture="LlamaForCausalLM (llama)",
    parameters=3_400_000,
    weights="safetensors, 1 file, 6.7 MB",
    chat_template="plain",
    system_role=False,
    end_tokens=("<|end|>",),
    pad_token="<|pad|>",
    window="512 tokens",
    device="cpu",
    free_mb=20_000,
    timing="not measured",
    methods=(WORKS, SLOW),
)
POLICY = PolicyRow(id="pol-1", name="mine", base="owner/name")


def test_a_report_says_what_works_and_in_how_much_memory() -> None:
    shown = model_view.report_panel(REPORT)
    assert "everything works here" in shown and "Nothing was added." in shown
    assert "1,055 MB" in shown and "12 s" in shown and ">DPO<" in shown and ">Replies<" in shown
    assert "&lt;b&gt;owner&lt;/b&gt;/name" in shown and "<b>" not in shown
    assert "a system message begins the first user message" in shown
    assert "Mind this" not in shown
    assert ModelReport.from_json(REPORT.as_json()) == REPORT


def test_a_report_says_what_to_mind() -> None:
    shown = model_view.report_panel(replace(REPORT, methods=(WORKS, SLOW, FAILS), not_examined=("the weights",)))
    assert "2 of 3 work here" in shown and "does not" in shown and "it has no &lt;scores&gt;" in shown
    assert "Not examined: the weights." in shown
    assert "Only 1,000 MB are free on cpu" in model_view.report_panel(replace(REPORT, free_mb=1_000))
    assert "badge-bad" in model_view.report_panel(replace(REPORT, methods=(FAILS,)))


def test_what_became_of_a_model_is_told_with_the_next_step() -> None:
    whole = Examination("owner/name", ("tokenizer", "window (512 tokens)"))
    shown = model_view.added_panel(Added(POLICY, whole))
    assert "mine can reply now" in shown and "tokenizer, window (512 tokens)" in shown and "Playground" in shown
    shown = model_view.added_panel(Added(POLICY, Examination("owner/name", (), ("anything: it is far",))))
    assert "can reply now" not in shown and "Not examined: anything: it is far." in shown
    assert "mine can reply now" in model_view.added_panel(Added(POLICY))


def test_progress_and_failure_are_told() -> None:
    shown = model_view.examining("Reading <its> files", 12.4)
    assert "Reading &lt;its&gt; files…" in shown and ">12 s<" in shown and 'role="progressbar"' in shown
    shown = model_view.failed_panel(NotFound("model", "<x>", hint="`studio policies add smollm2` downloads it."))
    assert "&lt;x&gt;" in shown and "“Add a model” on the Policies tab downloads it." in shown


def test_the_own_template_is_offered_first() -> None:
    assert [value for _, value in model_view.template_choices()] == ["", *PLAIN_TEMPLATES]
