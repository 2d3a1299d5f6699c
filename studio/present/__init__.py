"""Pure: values to what the page shows. One module per noun, behind the same names.

Nothing here reads a database or a clock: moments come in as arguments. Text written by models and people goes
through ``studio.markup.escape``; whatever is shown to an annotator never mentions a policy.
"""

from studio.present.curves import Series, curve_names, figure, first_plots, plot_frames, tick_step, usual_curve
from studio.present.datasets import (
    dataset_choices,
    dataset_detail,
    datasets_table,
    download_link,
    feedback_counts,
    frozen_text,
    no_dataset,
)
from studio.present.desk import (
    criteria_of,
    figures,
    guidelines_frame,
    guidelines_text,
    messages,
    overlays,
    panels,
    tools,
    verdicts,
)
from studio.present.forms import FormField, chosen_settings, existing_choices, form_fields, settings_of
from studio.present.gate import benchmarks_panel, gate_panel, gate_sentence
from studio.present.label import empty_pool, hint, label_status, pair
from studio.present.login import SIGN_IN_CONTENT_POLICY, account_page, sign_in_page
from studio.present.page import api_reference, header
from studio.present.people import (
    audit_table,
    disable_question,
    role_choices,
    secret_once,
    signed_in,
    user_detail,
    users_table,
)
from studio.present.policies import (
    judge_choices,
    policies_table,
    policy_choices,
    policy_detail,
    promote_label,
    promote_question,
    promoted_text,
    win_rate,
)
from studio.present.runs import (
    can_annotate,
    can_cancel,
    can_resume,
    latest_metrics,
    log_tail,
    run_choices,
    run_detail,
    run_words,
    runs_table,
)
from studio.present.words import ago, duration, error_text, label_of

__all__ = [
    "SIGN_IN_CONTENT_POLICY",
    "FormField",
    "Series",
    "account_page",
    "ago",
    "api_reference",
    "audit_table",
    "benchmarks_panel",
    "can_annotate",
    "can_cancel",
    "can_resume",
    "chosen_settings",
    "criteria_of",
    "curve_names",
    "dataset_choices",
    "dataset_detail",
    "datasets_table",
    "disable_question",
    "download_link",
    "duration",
    "empty_pool",
    "error_text",
    "existing_choices",
    "feedback_counts",
    "figure",
    "figures",
    "first_plots",
    "form_fields",
    "frozen_text",
    "gate_panel",
    "gate_sentence",
    "guidelines_frame",
    "guidelines_text",
    "header",
    "hint",
    "judge_choices",
    "label_of",
    "label_status",
    "latest_metrics",
    "log_tail",
    "messages",
    "no_dataset",
    "overlays",
    "pair",
    "panels",
    "plot_frames",
    "policies_table",
    "policy_choices",
    "policy_detail",
    "promote_label",
    "promote_question",
    "promoted_text",
    "role_choices",
    "run_choices",
    "run_detail",
    "run_words",
    "runs_table",
    "secret_once",
    "settings_of",
    "sign_in_page",
    "signed_in",
    "tick_step",
    "tools",
    "user_detail",
    "users_table",
    "usual_curve",
    "verdicts",
    "win_rate",
]
