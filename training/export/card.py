"""The README.md of an export, by the conventions of the Hugging Face Hub: what it is, how it was made and measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.export.origin import PROVENANCE_FILE, Origin

CARD_FILE = "README.md"
LIBRARIES = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}
RELATIONS = {"adapter": "adapter", "merged": "finetune", "gguf": "finetune"}
_MADE = {
    "adapter": "an adapter for PEFT, over the base model",
    "merged": "the base model with the trained adapter merged into its weights",
    "gguf": "a GGUF file for llama.cpp and Ollama",
}
_BARE = {"merged": "the base model as it is", "gguf": "a GGUF file of the base model for llama.cpp and Ollama"}


def write_card(directory: Path, origin: Origin, form: str, checks: Sequence[str], gguf_name: str = "") -> None:
    """Put the card into a directory; ``checks`` are sentences on how the export was compared with the policy."""
    (directory / CARD_FILE).write_text(card(origin, form, checks, gguf_name), encoding="utf-8")


def card(origin: Origin, form: str, checks: Sequence[str], gguf_name: str = "") -> str:
    """The text of the card, YAML front matter first."""
    what = (_MADE if origin.manifest else _BARE)[form]
    sections = [
        f"---\n{_front_matter(origin, form)}\n---",
        f"# {origin.policy.name}",
        f"A language model: {what}. It was exported by RLHF Studio; `{PROVENANCE_FILE}` has its record.",
        "## How it was made",
        "\n".join(_origins(origin)),
        *_lineage(origin),
        "## What was measured",
        *_measured(origin),
        "## How it was checked",
        "\n".join(f"- {check}" for check in checks),
        "## How to load it",
        _loading(origin, form, gguf_name),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(origin: Origin, form: str) -> str:
    from huggingface_hub import ModelCardData

    method = origin.manifest.method if origin.manifest else ""
    tags = ["rlhf-studio", *([method] if method else []), *(["lora"] if origin.adapter_kind == "LORA" else [])]
    data: dict[str, Any] = {
        "library_name": LIBRARIES[form],
        "pipeline_tag": "text-generation",
        "tags": tags,
        **origin.base_license,
    }
    if "/" in origin.base_name:  # an id of the Hub, which a directory's name is not
        data["base_model"] = origin.base_name
    if "base_model" in data and (origin.manifest or form == "gguf"):
        data["base_model_relation"] = RELATIONS[form] if origin.manifest else "quantized"
    return str(ModelCardData(**data).to_yaml())


def _origins(origin: Origin) -> list[str]:
    step, manifest = origin.lineage, origin.manifest
    lines = [f"- base: `{origin.base_name}`"]
    if "license" not in origin.base_license:
        lines.append("- license: that of the base, which its files here do not name")
    if manifest is None:
        return [*lines, "- training: none"]
    lines += [f"- adapter: {manifest.adapter.kind}", f"- method: {manifest.method or 'not recorded'}"]
    lines += [f"- {_learnt_from(each)}" for each in (step, *step["rewards"]) if each["dataset"]]
    if step["reward_function"]:
        lines.append(f"- scored by the function `{step['reward_function']}`")
    if step["parent"]:
        lines.append(f"- parent: `{step['parent']['policy']['name']}`")
    return [*lines, f"- seed: {manifest.seed}"]


def _learnt_from(made: dict[str, Any]) -> str:
    """A dataset with its hash and how many judgments of which source it holds; nobody is named."""
    dataset, judgments = made["dataset"], made["judgments"]
    sources = ", ".join(f"{count} {source}" for source, count in judgments["by_source"].items())
    scored = f" (by which the reward model `{made['checkpoint']['name']}` learnt)" if "rewards" not in made else ""
    used = "prompts of the dataset" if made.get("prompts_only") else "dataset"
    return (
        f"{used}: `{dataset['name']}`, hash `{dataset['hash']}`, of {judgments['count']} judgments ({sources}){scored}"
    )


def _lineage(origin: Origin) -> list[str]:
    names = []
    for step in origin.steps():
        method = f" ({step['run']['method']})" if step["run"] else ""
        names.append(f"`{step['policy']['name']}`{method}")
    return [f"Lineage: {' ← '.join(names)}."] if len(names) > 1 else []


def _measured(origin: Origin) -> list[str]:
    found = ["\n".join(f"- It wins {sentence}." for sentence in origin.win_rates) or "No win rate was measured."]
    if origin.gate:
        verdict, *reasons = origin.gate
        found += [f"The promotion gate says: **{verdict}**.", "\n".join(f"- {reason}" for reason in reasons)]
    return found


def _loading(origin: Origin, form: str, gguf_name: str) -> str:
    if form == "adapter" and origin.adapter_kind == "BOTTLENECK":
        return "Plain PEFT does not know this kind of adapter. RLHF Studio loads it: `import training.adapters` first."
    if form == "adapter":
        return (
            "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f"base = AutoModelForCausalLM.from_pretrained({origin.base_name!r})\n"
            'model = PeftModel.from_pretrained(base, "PATH-OR-REPOSITORY")\n'
            'tokenizer = AutoTokenizer.from_pretrained("PATH-OR-REPOSITORY")\n```'
        )
    if form == "gguf":
        name = origin.policy.name
        return (
            f"```\nllama-cli -m {gguf_name} --jinja\n"
            f"ollama create {name.lower()} -f Modelfile && ollama run {name.lower()}\n```"
        )
    return (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("PATH-OR-REPOSITORY")\n'
        'tokenizer = AutoTokenizer.from_pretrained("PATH-OR-REPOSITORY")\n'
        'ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hello."}], add_generation_prompt=True,\n'
        '                                    return_tensors="pt", return_dict=True)\n'
        "print(tokenizer.decode(model.generate(**ids)[0]))\n```\n\n"
        "The weights are stored in 32 bits, in which the replies were compared; `dtype=torch.bfloat16` halves them."
    )
