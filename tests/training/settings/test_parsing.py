"""Settings: text becomes values, and what is wrong is answered with what would be right."""

from __future__ import annotations

import subprocess
import sys

import pytest

from feedback.errors import UnknownSetting
from training.methods import METHODS
from training.settings.dpo import DpoSettings
from training.settings.parsing import describe, parse_settings
from training.settings.registry import SETTINGS
from training.settings.reward import RewardSettings


def test_text_from_a_command_line_becomes_values() -> None:
    settings = parse_settings(
        "dpo", {"dataset": "d1", "beta": "0.3", "epochs": "2", "learning_rate": "5e-4", "micro_batch": "none"}
    )
    assert (settings.beta, settings.epochs, settings.learning_rate, settings.micro_batch) == (0.3, 2, 5e-4, None)


def test_an_unknown_key_is_answered_with_all_valid_ones_and_their_ranges() -> None:
    with pytest.raises(UnknownSetting) as caught:
        parse_settings("dpo", {"dataset": "d1", "betta": "0.3"})
    text = str(caught.value)
    assert "dpo has no setting 'betta'." in text
    for name in DpoSettings.model_fields:
        assert name in text
    assert "beta (0.001 to 10)" in text


@pytest.mark.parametrize(
    "name", ["min_steps", "embedding_noise", "max_length", "log_every", "report_to", "sample_every", "quantize"]
)
def test_ppo_refuses_settings_that_it_would_not_heed(name: str) -> None:
    with pytest.raises(UnknownSetting, match=f"ppo has no setting '{name}'"):
        parse_settings("ppo", {"reward": "r1", name: "1"})


def test_a_value_out_of_range_is_answered_with_the_range() -> None:
    with pytest.raises(UnknownSetting, match=r"beta='99' is not valid for dpo: float, 0.001 to 10"):
        parse_settings("dpo", {"dataset": "d1", "beta": "99"})
    with pytest.raises(UnknownSetting, match="above 0 to 0.1"):
        parse_settings("dpo", {"dataset": "d1", "learning_rate": 0})


def test_true_is_a_value_of_switches_alone() -> None:
    assert parse_settings("dpo", {"dataset": "d1", "allow_few": True, "learning_rate": None}).allow_few is True
    for name in ("epochs", "learning_rate", "beta"):
        with pytest.raises(UnknownSetting, match=f"{name}='true' is not valid for dpo"):
            parse_settings("dpo", {"dataset": "d1", name: True})


def test_a_missing_dataset_and_an_unusable_name_are_named() -> None:
    with pytest.raises(UnknownSetting, match="reward needs dataset: The frozen dataset to learn from"):
        parse_settings("reward", {})
    with pytest.raises(UnknownSetting, match="cannot name a policy"):
        parse_settings("dpo", {"dataset": "d1", "name": "../etc"})


def test_an_unknown_method_is_answered_with_the_methods() -> None:
    with pytest.raises(UnknownSetting, match=f"'pop'. Methods: {', '.join(sorted(METHODS))}"):
        parse_settings("pop", {})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"a": "p1"}, "give both policies"),
        ({"a": "p1", "b": "p2"}, "exactly one judge"),
        ({"a": "p1", "b": "p2", "oracle": "shorter", "reward": "r1"}, "exactly one judge"),
        ({"reward": "r1"}, "needs reward"),
    ],
)
def test_an_evaluation_asks_one_question(config: dict[str, str], reason: str) -> None:
    with pytest.raises(UnknownSetting, match=reason):
        parse_settings("evaluate", config)


@pytest.mark.parametrize("method", sorted(SETTINGS))
def test_every_field_has_a_sentence_and_every_number_a_range(method: str) -> None:
    for setting in describe(method):
        assert setting.sentence.endswith("."), setting
        if setting.type in ("int", "float", "choice"):
            assert setting.range, f"{method}.{setting.name} has no range"


def test_choices_and_limits_are_values_that_the_sentence_is_made_from() -> None:
    known = {setting.name: setting for setting in describe("dpo")}
    assert known["schedule"].choices == ("constant", "linear", "cosine")
    assert known["schedule"].range == "one of constant, linear, cosine"
    rate = known["learning_rate"]
    assert (rate.minimum, rate.maximum, rate.above_minimum, rate.range) == (0.0, 0.1, True, "above 0 to 0.1")
    epochs = known["epochs"]
    assert (epochs.minimum, epochs.maximum, epochs.above_minimum, epochs.range) == (1, 100, False, "1 to 100")
    assert (known["parent"].choices, known["parent"].minimum, known["parent"].range) == ((), None, "")


def test_the_rate_follows_the_size_of_the_base_unless_it_is_given() -> None:
    dpo, reward = DpoSettings(dataset="d"), RewardSettings(dataset="d")
    assert [dpo.rate_for(size) for size in (99_999_999, 100_000_000, 10**9)] == [3e-3, 3e-4, 2e-5]
    assert reward.rate_for(500_000_000) == 1e-4
    assert DpoSettings(dataset="d", learning_rate=0.01).rate_for(3_000_000) == 0.01


def test_few_pairs_get_as_many_steps_as_are_needed() -> None:
    settings = DpoSettings(dataset="d", batch_size=16, epochs=3, min_steps=60)
    assert settings.steps_for(2, 10**9) == 60
    assert settings.steps_for(1000, 10**9) == 63 * 3
    unset = DpoSettings(dataset="d", batch_size=16, epochs=3)
    assert (unset.steps_for(40, 3_000_000), unset.steps_for(40, 10**9)) == (90, 9), "a large base reads its epochs"


def test_a_micro_batch_is_never_larger_than_the_batch() -> None:
    assert DpoSettings(dataset="d", batch_size=2).micro_batch_for(100) == 2
    assert DpoSettings(dataset="d", batch_size=16).micro_batch_for(4) == 4
    assert DpoSettings(dataset="d", batch_size=16).micro_batch_for(100) == 16
    assert DpoSettings(dataset="d", batch_size=16).micro_batch_for(0) == 1, "a row too large to fit is tried alone"


@pytest.mark.parametrize(
    ("batch", "micro", "held"), [(10, None, 2), (30, None, 3), (30, 8, 6), (7, 4, 1), (12, 12, 12)]
)
def test_micro_batches_fill_a_batch_exactly(batch: int, micro: int | None, held: int) -> None:
    settings = DpoSettings(dataset="d", batch_size=batch, micro_batch=micro)
    assert settings.micro_batch_for(4) == held


@pytest.mark.parametrize(
    "module",
    [
        "training.settings.train",
        "training.methods",
        "training.rewards.oracles",
        "training.checkpoints",
        "training.evaluation.win_rate",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(module: str) -> None:
    code = f"import sys, {module}; sys.exit(', '.join({{'torch', 'transformers', 'gradio'}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_setting_of_few_words_is_answered_with_those_words() -> None:
    with pytest.raises(UnknownSetting, match="choice, one of pair, rank") as refused:
        parse_settings("generate", {"kind": "trio"})
    assert "kind (one of pair, rank)" in str(refused.value)


def test_a_setting_that_is_validated_is_named_by_its_type() -> None:
    assert {one.name: one.type for one in describe("generate")}["stop"] == "list"
    with pytest.raises(UnknownSetting, match=r"stop=\[''\] is not valid for generate: list, .*stop \(list\)"):
        parse_settings("generate", {"stop": [""]})
