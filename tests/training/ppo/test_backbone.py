"""One base under many roles: each learns as if it were alone, the base stays what it was, nothing is padded in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from feedback.errors import CheckpointError, InvalidInput
from tests.training.tiny_models import model_at
from training.adapters.bottleneck import BottleneckConfig
from training.checkpoints.manifest import ADAPTER_FILE
from training.models.loading import load_base
from training.ppo.backbone import HEAD_FILE, Backbone
from training.ppo.backbone_adapters import PeftAdapters
from training.ppo.batch import make_batch

PROMPTS = [[3, 20, 21, 22, 4], [3, 30, 4], [3, 40, 41, 4]]
REPLIES = [[50, 51, 52, 1], [60, 1], [70, 71, 72, 73, 74]]  # the last one did not end


def lora(rank: int = 4, **more: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **more)


def stir(adapters: PeftAdapters, name: str, seed: int) -> None:
    """Give an adapter weights, so that it does something."""
    generator = torch.Generator().manual_seed(seed)
    for value in adapters.parameters(name).values():
        value.data.copy_(0.3 * torch.randn(value.shape, generator=generator))


def make_backbone(base: Path, *names: str, **options: Any) -> tuple[Backbone, PeftAdapters]:
    model, tokenizer = load_base(str(base), "cpu")
    adapters = PeftAdapters(model)
    backbone = Backbone(str(base), model, tokenizer, adapters, **options)
    for number, name in enumerate(names):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            adapters.create(name, lora())
        stir(adapters, name, number)
    return backbone, adapters


def batch() -> Any:
    return make_batch(PROMPTS, REPLIES, 0)


def base_weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    own = {id(value) for name in backbone.adapters.names() for value in backbone.adapters.parameters(name).values()}
    return {name: value.detach().clone() for name, value in backbone.model.named_parameters() if id(value) not in own}


def gradients(backbone: Backbone, role: str) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in backbone.parameters_of(role).items() if value.grad is not None}


def learn(backbone: Backbone, role: str) -> None:
    with backbone.role(role, training=True) as actor:
        loss = actor.values(batch()).square().sum() if role in backbone.heads else -actor.log_probs(batch())[0].sum()
        loss.backward()


@pytest.fixture
def backbone(tiny_base: Path) -> Iterator[Backbone]:
    made, _ = make_backbone(tiny_base, "policy", "value", "reward_0")
    width = made.model.config.hidden_size
    for number, role in enumerate(("value", "reward_0")):
        made.add_head(role, torch.randn(1, width, generator=torch.Generator().manual_seed(number)), bias=0.5)
    yield made


def test_the_log_probs_are_those_of_the_model_itself(backbone: Backbone) -> None:
    found, entropy = (part for part in policy_log_probs(backbone, temperature=0.7))
    backbone.adapters.activate("policy")
    for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
        with torch.no_grad():
            logits = backbone.model(input_ids=torch.tensor([prompt + reply])).logits[0] / 0.7
        expected = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        picked = expected.gather(1, torch.tensor(reply)[:, None])[:, 0]
        torch.testing.assert_close(found[row, : len(reply)], picked, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(entropy[row, : len(reply)], -(expected.exp() * expected).sum(-1), atol=1e-5, rtol=0)
        assert not found[row, len(reply) :].any() and not entropy[row, len(reply) :].any()


def policy_log_probs(backbone: Backbone, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    with backbone.role("policy") as policy:
        return policy.log_probs(batch(), temperature)


def test_chunks_of_logits_add_up(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = policy_log_probs(backbone)
    learn(backbone, "policy")
    expected = gradients(backbone, "policy")
    backbone.model.zero_grad()
    vocabulary = backbone.model.config.vocab_size
    monkeypatch.setattr("training.ppo.backbone.CHUNK_LOGITS", 3 * vocabulary)
    for one, other in zip(whole, policy_log_probs(backbone), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    learn(backbone, "policy")
    for name, gradient in gradients(backbone, "policy").items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


def test_banned_tokens_get_no_probability(tiny_base: Path) -> None:
    backbone, _ = make_backbone(tiny_base, "policy", banned=[0, 2, 3, 4])
    backbone.adapters.activate("policy")
    with torch.no_grad():
        logits = backbone.model(input_ids=torch.tensor([PROMPTS[0] + REPLIES[0]])).logits[0]
    logits[:, [0, 2, 3, 4]] = -torch.inf
    expected = logits.log_softmax(-1)[len(PROMPTS[0]) - 1, REPLIES[0][0]]
    found, entropy = policy_log_probs(backbone)
    assert found[0, 0].item() == pytest.approx(expected.item(), abs=1e-5)
    assert entropy.isfinite().all()


def test_values_and_scores_are_read_where_they_belong(backbone: Backbone) -> None:
    """Values before each token of the reply, the score at its last one: no end, end first and full length alike."""
    made = batch()
    with backbone.role("value") as value:
        values = value.values(made)
    with backbone.role("reward_0") as reward:
        lengths = torch.tensor([len(p) + len(r) for p, r in zip(PROMPTS, REPLIES, strict=True)])
        scores = reward.scores(made.ids, lengths)
    for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
        alone = torch.tensor([prompt + reply])
        for role, found, place in (
            ("value", values[row, : len(reply)], slice(len(prompt) - 1, -1)),
            ("reward_0", scores[row : row + 1], slice(-1, None)),
        ):
            with backbone.role(role) as actor, torch.no_grad():
                expected = backbone.heads[role](actor.hidden(alone))[0, place, 0]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert not values[row, len(reply) :].any()


def test_a_summed_head_adds_up_what_it_reads_up_to_each_place(backbone: Backbone) -> None:
    backbone.add_head("reward_0", backbone.heads["reward_0"].weight.detach(), bias=0.25, pooling="sum")
    made = batch()
    with backbone.role("reward_0") as reward:
        lengths = torch.tensor([len(p) + len(r) for p, r in zip(PROMPTS, REPLIES, strict=True)])
        scores, values = reward.scores(made.ids, lengths), reward.values(made)
        for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
            said = reward.hidden(torch.tensor([prompt + reply]))[0] @ backbone.heads["reward_0"].weight[0]
            assert scores[row].item() == pytest.approx(said.sum().item() / 32 + 0.25, abs=1e-5)
            assert values[row, 0].item() == pytest.approx(said[: len(prompt)].sum().item() / 32 + 0.25, abs=1e-5)


def test_adalora_beside_another_is_refused_in_words(tiny_base: Path) -> None:
    """PEFT lets one learn, and would say so as a ValueError about models."""
    from peft import AdaLoraConfig

    _, adapters = make_backbone(tiny_base)
    shape = AdaLoraConfig(target_modules="all-linear", total_step=10, task_type="CAUSAL_LM")
    adapters.create("reward_0", shape)
    with pytest.raises(InvalidInput, match=r"'policy' cannot lie beside 'reward_0'.*adapter=lora"):
        adapters.create("policy", shape)


def test_putting_an_adapter_over_the_base_turns_no_gradient_on(backbone: Backbone) -> None:
    for name in ("policy", None, "value", "value"):
        backbone.adapters.activate(name)
        assert backbone.adapters.active() == name
        assert not any(value.requires_grad for value in backbone.model.parameters())


def test_padding_beside_a_row_changes_nothing(backbone: Backbone) -> None:
    together = policy_log_probs(backbone)[0]
    for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
        with backbone.role("policy") as policy:
            alone, _ = policy.log_probs(make_batch([prompt], [reply], 0))
        torch.testing.assert_close(together[row, : len(reply)], alone[0], atol=1e-5, rtol=1e-5)
    # Whatever the pad token is, even the end token, nobody reads it
    with backbone.role("policy") as policy:
        padded_by_end, _ = policy.log_probs(make_batch(PROMPTS, REPLIES, 1))
    assert torch.equal(together, padded_by_end)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("role", ["policy", "value"])
def test_a_role_learns_as_if_it_were_alone(tiny_base: Path, backbone: Backbone, role: str, checkpointed: bool) -> None:
    alone, adapters = make_backbone(tiny_base, role)
    for name, value in adapters.parameters(role).items():
        value.data.copy_(backbone.adapters.parameters(role)[name])
    if role in backbone.heads:
        alone.add_head(role, backbone.heads[role].weight.detach(), bias=0.5)
    learn(alone, role)
    if checkpointed:
        backbone.enable_gradient_checkpointing()
    for other in ("policy", "reward_0", role):  # whoever acted before leaves no trace
        learn(backbone, other)
        if other != role:
            backbone.model.zero_grad()
    backbone.model.zero_grad()
    for head in backbone.heads.values():
        head.zero_grad()
    learn(backbone, role)
    expected = gradients(alone, role)
    assert gradients(backbone, role).keys() == expected.keys() == backbone.parameters_of(role).keys()
    for name, gradient in gradients(backbone, role).items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


def test_a_batch_of_several_roles_is_what_each_gives_alone(backbone: Backbone) -> None:
    """PEFT can give each row an adapter of its own; layers of one product do not stand in its way."""
    ids, names = torch.arange(5, 30).repeat(4, 1), ["policy", "__base__", "value", "reward_0"]
    with torch.no_grad(), backbone.role("policy"):
        mixed = backbone.adapters._wrapper(input_ids=ids, adapter_names=names).logits  # type: ignore[attr-defined]
    for row, name in enumerate(names):
        with backbone.role("reference" if name == "__base__" else name):
            alone = backbone.model(input_ids=ids[row : row + 1]).logits[0]
            torch.testing.assert_close(mixed[row], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mixed[0], mixed[1], atol=1e-3)


def test_only_the_acting_role_changes_and_the_base_never(backbone: Backbone) -> None:
    before, states = base_weights(backbone), {name: backbone.state_of(name) for name in ("policy", "value", "reward_0")}
    reference = reference_logits(backbone)
    optimizer = torch.optim.AdamW(backbone.parameters_of("policy").values(), lr=0.1)
    learn(backbone, "policy")
    learn(backbone, "value")  # has gradients of its own, and no step
    optimizer.step()
    for role, state in states.items():
        changed = {name for name, value in backbone.state_of(role).items() if not torch.equal(value, state[name])}
        assert changed == (set(state) if role == "policy" else set()), role
    assert all(torch.equal(value, before[name]) for name, value in base_weights(backbone).items())
    assert torch.equal(reference_logits(backbone), reference)


def reference_logits(backbone: Backbone) -> torch.Tensor:
    with backbone.role("reference"):
        return torch.as_tensor(backbone.model(input_ids=torch.arange(5, 30)[None]).logits)


def test_the_reference_is_the_bare_base_and_says_so_by_its_weights(tiny_base: Path, backbone: Backbone) -> None:
    bare, _ = load_base(str(tiny_base), "cpu")
    with torch.no_grad():
        assert torch.equal(reference_logits(backbone), bare(input_ids=torch.arange(5, 30)[None]).logits)


def test_a_parents_adapter_is_the_reference_where_it_is_named(tiny_base: Path, tmp_path: Path) -> None:
    first, _ = make_backbone(tiny_base, "policy")
    first.save("policy", tmp_path)
    backbone, again = make_backbone(tiny_base)
    again.read("policy", tmp_path)
    again.read("reference", tmp_path)
    backbone.reference_adapter = "reference"
    with first.role("policy"):
        expected = first.model(input_ids=torch.arange(5, 30)[None]).logits
    assert torch.equal(reference_logits(backbone), expected)
    stir(again, "policy", 9)
    assert torch.equal(reference_logits(backbone), expected)


def test_flags_are_off_outside_and_only_the_roles_own_inside(backbone: Backbone) -> None:
    def learning() -> set[int]:
        heads = itertools.chain.from_iterable(head.parameters() for head in backbone.heads.values())
        return {id(value) for value in [*backbone.model.parameters(), *heads] if value.requires_grad}

    with backbone.role("value", training=True):
        assert learning() == {id(value) for value in backbone.parameters_of("value").values()}
    assert not learning()
    with backbone.role("value"):
        assert not learning() and not torch.is_grad_enabled()
    assert not learning()


def test_an_adapter_switched_inside_a_role_is_found_out(backbone: Backbone) -> None:
    with pytest.raises(RuntimeError, match="adapter was switched to 'value'"), backbone.role("policy", training=True):
        backbone.adapters.activate("value")
    with pytest.raises(RuntimeError, match="gradient flags were changed"), backbone.role("policy", training=True):
        next(iter(backbone.parameters_of("value").values())).requires_grad_(True)


def own_of(backbone: Backbone) -> list[Any]:
    return list(backbone.model.parameters())


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora", "ia3", "bottleneck"])
def test_any_kind_of_peft_adapter_plays_a_role(tiny_base: Path, kind: str) -> None:
    from peft import IA3Config

    config = {
        "lora": lora(),
        "dora": lora(use_dora=True),
        "rslora": lora(use_rslora=True),
        "bottleneck": BottleneckConfig(layout="houlsby", reduction=4, task_type="CAUSAL_LM"),
        "ia3": IA3Config(
            task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
    }[kind]
    backbone, adapters = make_backbone(tiny_base)
    adapters.create("policy", config)
    adapters.create("value", config)
    other = backbone.state_of("value")
    before = reference_logits(backbone)
    optimizer = torch.optim.SGD(backbone.parameters_of("policy").values(), lr=0.05)
    for _ in range(3):
        learn(backbone, "policy")
        learning = {id(value) for value in backbone.parameters_of("policy").values()}
        assert learning and all((value.grad is not None) == (id(value) in learning) for value in own_of(backbone))
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(reference_logits(backbone), before)
    assert all(torch.equal(value, other[name]) for name, value in backbone.state_of("value").items())
    with backbone.role("policy"):
        assert not torch.equal(backbone.model(input_ids=torch.arange(5, 30)[None]).logits, before)


def test_adapters_of_two_kinds_on_one_base_are_refused_in_words(tiny_base: Path) -> None:
    _, adapters = make_backbone(tiny_base)
    adapters.create("policy", lora())
    config = BottleneckConfig(layout="houlsby", reduction=4, task_type="CAUSAL_LM")
    with pytest.raises(InvalidInput, match=r"'reward_0' is of the kind BOTTLENECK and 'policy' of the kind LORA"):
        adapters.create("reward_0", config)
    assert adapters.names() == ["policy"]


@pytest.mark.parametrize("start", ["pissa", "olora", "pissa_niter_4"])
def test_an_adapter_that_would_change_the_base_is_refused(tiny_base: Path, start: str) -> None:
    _, adapters = make_backbone(tiny_base)
    with pytest.raises(InvalidInput, match=f"starts as '{start}' changes the base"):
        adapters.create("policy", lora(init_lora_weights=start))


def test_what_is_saved_is_read_again_bit_for_bit_and_by_plain_peft(
    tiny_base: Path, backbone: Backbone, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM
    from safetensors.torch import load_file

    backbone.save("policy", tmp_path / "policy")
    backbone.save("value", tmp_path / "value")
    head = load_file(tmp_path / "value" / HEAD_FILE)
    assert torch.equal(head["weight"], backbone.heads["value"].weight) and head["bias"].item() == 0.5
    again, adapters = make_backbone(tiny_base)
    adapters.read("value", tmp_path / "value")
    again.add_head("value", head["weight"], float(head["bias"]))
    assert all(torch.equal(value, again.state_of("value")[name]) for name, value in backbone.state_of("value").items())

    plain = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "policy")
    ids = torch.arange(5, 30)[None]
    with backbone.role("policy"):
        torch.testing.assert_close(plain(input_ids=ids).logits, backbone.model(input_ids=ids).logits)


def test_an_adapter_that_lacks_weights_is_refused(backbone: Backbone, tiny_base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    backbone.save("policy", tmp_path)
    weights = load_file(tmp_path / ADAPTER_FILE)
    weights.pop(next(iter(weights)))
    save_file(weights, tmp_path / ADAPTER_FILE, metadata={"format": "pt"})
    _, adapters = make_backbone(tiny_base)
    with pytest.raises(CheckpointError, match="does not fit its base: it lacks"):
        adapters.read("policy", tmp_path)


def test_a_model_with_a_head_of_its_own_making_is_refused(tiny_base: Path) -> None:
    backbone, _ = make_backbone(tiny_base, "policy")
    backbone.check_head()
    real = backbone.model.lm_head.forward
    backbone.model.forward = lambda **given: type(
        "Out", (), {"logits": 3 * real(backbone.decoder(**given).last_hidden_state)}
    )
    with pytest.raises(InvalidInput, match="makes its logits in a way"):
        backbone.check_head()


@pytest.mark.parametrize(
    ("family", "scaled"),
    [
        ("granite", {"logits_scaling": 4.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("gemma2", {"final_logit_softcapping": 2.0}),
    ],
)
def test_logits_that_a_family_scales_or_caps_are_its_own(family: str, scaled: dict[str, float], tmp_path: Path) -> None:
    backbone, _ = make_backbone(model_at(tmp_path / family, family, initializer_range=0.5, **scaled))
    backbone.check_head()
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        found = backbone.logits(backbone.states(ids, torch.arange(ids.shape[1])[None]))
        expected = backbone.model(input_ids=ids).logits
    torch.testing.assert_close(found, expected.float())


def test_a_family_that_keeps_its_layers_deeper_has_them_found(tmp_path: Path) -> None:
    backbone, _ = make_backbone(model_at(tmp_path / "opt", "opt"))
    assert len(backbone.layers) == 2
    del backbone.model.model.decoder.layers
    backbone.model.model.decoder.blocks = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with pytest.raises(InvalidInput, match="has no list of layers"):
        _ = backbone.layers
