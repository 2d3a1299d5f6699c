"""The Policies tab: what the gate says of a policy, benchmarks and the runs that take them, exports, a model added."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feedback.store.models import policies, runs
from feedback.store.models.scorecards import save_scorecard
from feedback.types import Policy, RunState, Scorecard
from tests.browser.conftest import Studio, open_tab
from tests.factories import keep_benchmark
from training.bundled import STARTER_DIR
from training.export.archive import archive_path

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]


@pytest.mark.slow
def test_a_policy_that_lost_elsewhere_is_rejected_in_words_and_promoted_all_the_same(
    studio: Studio, open_page: OpenPage
) -> None:
    parent = policies.promote_policy(studio.db, policies.save_policy(studio.db, Policy(name="old", base="starter")).id)
    child = policies.save_policy(studio.db, Policy(name="new", base="starter", parent_id=parent.id))
    figures = {"win_rate": 0.8, "low": 0.7, "high": 0.9, "n_prompts": 50}
    save_scorecard(studio.db, Scorecard(kind="win_rate", subject_id=child.id, against_id=parent.id, figures=figures))
    for policy, wrong in ((parent.id, 0), (child.id, 60)):
        keep_benchmark(studio.db, policy, [0.0] * wrong + [1.0] * (400 - wrong))
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Policies")
    page.locator("#policies-table .pick", has_text="new").click()

    expect(page.locator("#gate-verdict h4 .badge")).to_have_text("REJECT")
    expect(page.locator("#gate-verdict li").first).to_contain_text("It wins 80.0 %")
    expect(page.locator("#gate-verdict")).to_contain_text("sums lost 15.0 points")
    row = page.locator("#benchmarks tbody tr").first
    expect(row).to_contain_text("1.000 → 0.850")
    expect(row.locator(".badge")).to_have_text("worse")
    dot, mark = (row.locator(f".range-{part}").bounding_box() for part in ("dot", "mark"))
    assert dot and mark and dot["x"] < mark["x"], "a loss stands left of the line of no difference"
    details = page.locator("#benchmarks details")
    details.locator("summary").click()
    expect(details.locator(".benchmark-item")).to_have_count(5)

    page.locator("#promote").click()
    expect(page.locator("#promote-question")).to_contain_text("The gate says REJECT: sums lost 15.0 points")
    page.locator("#promote-yes").click()
    expect(page.locator("#policies-table tr", has_text="new")).to_contain_text("champion")


@pytest.mark.slow
def test_benchmarks_are_taken_by_both_from_the_page(studio: Studio, open_page: OpenPage) -> None:
    parent = policies.promote_policy(studio.db, policies.save_policy(studio.db, Policy(name="old", base="starter")).id)
    child = policies.save_policy(studio.db, Policy(name="new", base="starter", parent_id=parent.id))
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Policies")
    page.locator("#policies-table .pick", has_text="new").click()
    expect(page.locator("#gate-verdict h4 .badge")).to_have_text("HOLD")
    page.locator("#benchmark-tasks textarea, #benchmark-tasks input").fill(" ")
    page.locator("#take-benchmarks").click()
    expect(page.get_by_text("Name a benchmark task")).to_be_visible()
    page.locator("#benchmark-tasks textarea, #benchmark-tasks input").fill("starter_topic")
    page.locator("#take-benchmarks").click()
    expect(page.get_by_text("wait for the worker")).to_be_visible()
    asked = {run.config["policy"]: run.config["tasks"] for run in runs.list_runs(studio.db, method="benchmark")}
    assert asked == {child.id: ["starter_topic"], parent.id: ["starter_topic"]}


@pytest.mark.slow
def test_a_policy_is_exported_and_downloaded_from_the_page(studio: Studio, open_page: OpenPage) -> None:
    policy = policies.promote_policy(studio.db, policies.save_policy(studio.db, Policy(name="new", base="starter")).id)
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Policies")
    page.locator("#policies-table .pick", has_text="new").click()
    page.locator("#export-policy").click()
    expect(page.locator("#policy-exports")).to_contain_text("Merged model, for transformers: waits for the worker")
    (run,) = runs.list_runs(studio.db, method="export")
    assert run.config == {"policy": policy.id, "form": "merged", "quantization": "f16"}
    for before, after in (("queued", "starting"), ("starting", "running")):
        runs.transition_run(studio.db, run.id, expected=[RunState(before)], to=RunState(after))
    path = archive_path(studio.home, policy.id, "merged", "f16")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK of a kind")
    runs.update_run(studio.db, run.id, result={"bytes": 12_000_000, "checks": ["Replies are the same."]})
    runs.transition_run(studio.db, run.id, expected=[RunState.running], to=RunState.succeeded)
    link = page.locator("#policy-exports a")
    expect(link).to_have_text("Download (12.0 MB)")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "new-merged.zip"
    assert download.value.path().read_bytes() == b"PK of a kind"


@pytest.mark.slow
def test_a_model_is_checked_and_added_on_the_page(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, policies.save_policy(studio.db, Policy(name="old", base="starter")).id)
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Policies")
    expect(page.locator("#check-model")).to_be_hidden()
    page.get_by_role("button", name="Add a model").click()
    page.locator("#check-model").click()
    expect(page.get_by_text("Name a model first: a Hugging Face id")).to_be_visible()

    model, name = (page.locator(f"#model-{field}").locator("input, textarea") for field in ("id", "name"))
    model.fill("/no/such/model")
    page.locator("#add-model").click()
    expect(page.locator("#model-found .notice-bad")).to_contain_text("There is no model directory '/no/such/model'")
    model.fill(str(STARTER_DIR))
    page.locator("#check-model").click()
    expect(page.locator("#model-found .examining")).to_contain_text("at work")
    expect(page.locator("#add-model")).to_be_disabled()
    report = page.locator("#model-found .model-report")
    expect(report.locator("tbody tr")).to_have_count(6)
    expect(report.locator("tbody tr", has_text="DPO")).to_contain_text("works")
    expect(report).to_contain_text("Nothing was added")
    assert [row.name for row in policies.list_policies(studio.db)] == ["old"]

    name.fill("mine")
    page.locator("#add-model").click()
    expect(page.locator("#policies-table tr.picked")).to_contain_text("mine")
    expect(page.locator("#policy-detail")).to_contain_text(str(STARTER_DIR))
    expect(page.locator("#model-found")).to_contain_text("mine can reply now")
    expect(model).to_have_value("")
    added = policies.get_policy(studio.db, "mine")
    assert (added.base, added.checkpoint_id) == (str(STARTER_DIR), None)
