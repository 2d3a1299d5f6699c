"""Settings of the method ``export``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from training.settings.train import Settings


class ExportSettings(Settings):
    """Write a policy as files for other programs, checked against it, and pack them into an archive to download."""

    METHOD: ClassVar[str] = "export"
    SUMMARY: ClassVar[str] = "Pack a policy into an archive to download."

    policy: str | None = Field(None, description="The policy that is exported; left out, the champion.")
    form: Literal["adapter", "merged", "gguf"] = Field(
        "merged", description="adapter: a PEFT adapter; merged: a model for transformers; gguf: a file for llama.cpp."
    )
    quantization: Literal["f16", "q8_0"] = Field("f16", description="The weights of a GGUF file.")
    prompts: int = Field(8, ge=1, le=1000, description="On how many prompts policy and export are compared.")
