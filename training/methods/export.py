"""An export as a run: a policy written as files, checked against it, and packed into an archive to download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.reporting.reporter import RunContext
from training.settings.export import ExportSettings

STEPS = 7  # messages of an export at most: the share of them that came is the progress


def run(context: RunContext) -> dict[str, Any]:
    """Export and pack; the result names the policy and the form, and how the files were checked."""
    from feedback.store.models.policies import get_policy
    from training.checkpoints.atomic_directory import scratch_directory
    from training.checkpoints.registration import policy_name
    from training.export.archive import archive_name, archive_path, write_archive
    from training.export.exporting import Form, Request, export_policy

    settings: ExportSettings = context.settings
    policy = get_policy(context.db, str(settings.policy))
    name = archive_name(policy_name(policy.name), settings.form, settings.quantization).removesuffix(".zip")
    path = archive_path(context.home, policy.id, settings.form, settings.quantization)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    messages = 0

    def say(line: str) -> None:
        nonlocal messages
        context.progress.check()
        messages += 1
        context.progress.log(line)
        context.progress.report(min(messages / STEPS, 0.95), line)

    with scratch_directory(path.parent) as scratch:
        request = Request(Form(settings.form), str(scratch / name), settings.quantization, settings.prompts)
        exported = export_policy(context.db, context.home, policy.id, request, say)
        say("packing the archive")
        size = write_archive(Path(exported.place), path, context.progress.check)
    return {
        "policy": policy.id,
        "form": settings.form,
        "quantization": settings.quantization if settings.form == Form.gguf else None,
        "bytes": size,
        "files": list(exported.files),
        "checks": list(exported.checks),
    }
