"""Does one step change what it should, and nothing else?"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from litevae.losses.total import AutoencoderLoss
from litevae.models.litevae import LiteVAE
from litevae.runs.processes import Processes
from litevae.training.config import RunConfig
from litevae.training.networks import Networks
from litevae.training.update import Update

from . import two_processes

TINY: dict[str, dict[str, Any]] = {
    "model": two_processes.CONFIG["model"],
    "data": {"crop_size": 32},
    "loss": {"adversarial_weight": 0.5},
    "discriminator": {"channels": 2, "resolution": 32},
    "train": {"batch_size": 4, "learning_rate": 0.01, "device": "cpu", "initialization": "pytorch"},
}
Make = Callable[..., tuple[Networks, Update]]


def config_of(**changes: dict[str, Any]) -> RunConfig:
    from omegaconf import OmegaConf

    from litevae.runs.recipes import build_config

    values = OmegaConf.merge(OmegaConf.create(TINY), OmegaConf.create(changes))
    return build_config(RunConfig, values, (), "test")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes("cpu")


@pytest.fixture
def make(processes: Processes) -> Make:
    """make(section={key: value}) -> networks and update."""

    def built(**changes: dict[str, Any]) -> tuple[Networks, Update]:
        config = config_of(**changes)
        networks = Networks(config, processes)
        return networks, Update(config, networks, processes)

    return built


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_generator_step_leaves_the_discriminator_alone(make: Make) -> None:
    """Neither its weights, nor its spectral norms' vectors, nor its gradients."""
    networks, update = make()
    discriminator = networks.discriminator
    assert discriminator is not None
    before, image = state_of(discriminator.network), pixels().float() / 127.5 - 1
    output = update._reconstruct(image, 0)
    total, terms = update._generator_loss(image, output, discriminator, 0)
    networks.generator.backward(total)
    assert terms["adversarial"] != 0
    assert all(parameter.grad is None for parameter in discriminator.network.parameters())
    assert all(parameter.grad is not None for parameter in networks.model.parameters())
    networks.generator.step(1.0)
    assert not changed(discriminator.network, before)
    assert discriminator.network.training
    assert all(parameter.requires_grad for parameter in discriminator.network.parameters())


def test_discriminator_step_leaves_the_autoencoder_alone(make: Make) -> None:
    networks, update = make()
    discriminator = networks.discriminator
    assert discriminator is not None
    before, image = state_of(networks.model), pixels().float() / 127.5 - 1
    output = update._reconstruct(image, 0)
    loss, _ = update._discriminator_loss(image, output.sample.detach(), discriminator, 0)
    discriminator.backward(loss)
    assert all(parameter.grad is None for parameter in networks.model.parameters())
    assert all(parameter.grad is not None for parameter in discriminator.network.parameters())
    discriminator.step(1.0)
    assert not changed(networks.model, before)


def test_adversarial_gradient_reaches_the_generator(make: Make) -> None:
    """The gradient of weight * generator loss, added to the others': not lost under a no_grad."""
    gradients = []
    for weight in (0.0, 1.0, 2.0):
        start = 0 if weight else 1  # without logits the term may be left out before its start alone
        networks, update = make(loss={"adversarial_weight": weight or 1.0, "adversarial_start": start})
        image = pixels().float() / 127.5 - 1
        output = update._reconstruct(image, 0)
        total, _ = update._generator_loss(image, output, networks.discriminator if weight else None, 0)
        gradients.append(torch.autograd.grad(total, networks.model.last_layer)[0])
    alone, once, twice = gradients
    assert (once - alone).norm() > 1e-3 * alone.norm()
    torch.testing.assert_close(twice - alone, 2 * (once - alone), rtol=1e-3, atol=1e-6)


def test_every_parameter_moves_in_one_step(make: Make) -> None:
    networks, update = make(loss={"adversarial_loss": "logistic"})  # a hinge's last bias starts with a gradient of 0
    assert networks.discriminator is not None
    modules = (networks.model, networks.discriminator.network)
    before = [state_of(module) for module in modules]
    update(pixels(), 0)
    for module, state in zip(modules, before, strict=True):
        names = {name for name, _ in module.named_parameters()}
        assert names <= changed(module, state)


@pytest.mark.parametrize("start", [0, 3])
def test_adversary_starts_when_told(make: Make, start: int) -> None:
    _, update = make(loss={"adversarial_start": start})
    for step in range(5):
        terms = update(pixels(), step)
        for name in ("adversarial", "discriminator", "discriminator_gradient_norm"):
            assert (name in terms) == (step >= start)


def test_one_forward_pass_serves_both_steps(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, update = make()
    calls = []
    forward = LiteVAE.forward
    monkeypatch.setattr(LiteVAE, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1])
    update(pixels(), 0)
    assert len(calls) == 1


@pytest.mark.parametrize("accumulation", [2, 4])
def test_slices_have_the_gradient_of_the_batch(make: Make, accumulation: int) -> None:
    """And the same noise: sample n has its own."""
    terms, states = [], []
    for slices in (1, accumulation):
        networks, update = make(train={"accumulation": slices})
        for learner in networks.learners:
            learner.optimizer = torch.optim.SGD(learner.network.parameters(), lr=0.1, fused=True)
        terms.append(update(pixels(), 7))
        assert networks.discriminator is not None
        states.append([networks.model.state_dict(), networks.discriminator.network.state_dict()])
    torch.testing.assert_close(terms[0], terms[1], rtol=1e-4, atol=1e-6)
    # The discriminator's spectral norms are estimated once per forward pass, so its slices differ slightly.
    torch.testing.assert_close(states[0][0], states[1][0], rtol=1e-4, atol=1e-6)


class Synchronisations(TorchDispatchMode):
    """Counts reads of a tensor's value: on a GPU each would wait for it."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device(make: Make) -> None:
    _, update = make(train={"ema_decay": 0.9, "max_gradient_norm": 1.0}, loss={"ldl_weight": 0.1})
    with Synchronisations() as reads:
        for step in range(2):
            update(pixels(), step)
    assert reads.count == 0
    with reads:
        float(torch.ones(()))
    assert reads.count == 1  # it does count


def test_step_that_is_not_finite_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, update = make(train={"ema_decay": 0.9})
    update(pixels(), 0)
    states = [state_of(learner.network) for learner in networks.learners]
    moments = [torch.cat([s["exp_avg"].flatten() for s in x.optimizer.state.values()]) for x in networks.learners]
    plain = AutoencoderLoss._plain_terms

    def poisoned(self: Any, *args: Any) -> Any:
        return {name: term * float("inf") for name, term in plain(self, *args).items()}

    monkeypatch.setattr(AutoencoderLoss, "_plain_terms", poisoned)
    terms = update(pixels(), 1)
    assert terms["generator_skipped"] == 1
    assert not changed(networks.model, states[0])
    after = [torch.cat([s["exp_avg"].flatten() for s in x.optimizer.state.values()]) for x in networks.learners]
    assert torch.equal(moments[0], after[0])
    assert not torch.equal(moments[1], after[1])  # the discriminator saw nothing wrong
    assert networks.ema is not None
    assert all(torch.isfinite(value).all() for value in networks.ema.state_dict().values())
    monkeypatch.undo()
    assert update(pixels(), 2)["generator_skipped"] == 0
    assert changed(networks.model, states[0])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_float32_masters(make: Make, precision: str) -> None:
    networks, update = make(train={"mixed_precision": precision}, loss={"adversarial_start": 0})
    reference, exact = make()
    seen: list[torch.dtype] = []
    networks.model.decoder.conv_out.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    terms, truth = update(pixels(), 0), exact(pixels(), 0)
    update(pixels(), 1)
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    for learner in networks.learners:
        assert {parameter.dtype for parameter in learner.network.parameters()} == {torch.float32}
        assert {state["exp_avg"].dtype for state in learner.optimizer.state.values()} == {torch.float32}
    assert terms["l1"].item() == pytest.approx(truth["l1"].item(), rel=0.05)
    assert terms["l1"] != truth["l1"]
    assert reference.model is not networks.model


def test_fp16_scale_falls_after_an_overflow_and_the_step_is_skipped(make: Make) -> None:
    networks, update = make(train={"mixed_precision": "fp16"})
    networks.generator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = state_of(networks.model)
    assert update(pixels(), 0)["generator_skipped"] == 1
    assert networks.generator.scaler.get_scale() == 2.0**39
    assert not changed(networks.model, before)


def test_average_is_the_recurrence(make: Make) -> None:
    networks, update = make(train={"ema_decay": 0.75})
    assert networks.ema is not None
    expected = networks.model.last_layer.detach().double()
    for step in range(3):
        update(pixels(), step)
        expected = 0.75 * expected + 0.25 * networks.model.last_layer.detach().double()
    torch.testing.assert_close(networks.ema.last_layer.double(), expected, rtol=1e-5, atol=1e-7)


def test_gradients_are_shortened_to_the_norm(make: Make) -> None:
    networks, update = make(train={"max_gradient_norm": 1e-3})
    networks.generator.optimizer = torch.optim.SGD(networks.model.parameters(), lr=1.0, fused=True)
    before = torch.cat([value.flatten().clone() for value in networks.model.parameters()]).detach()
    terms = update(pixels(), 0)
    after = torch.cat([value.flatten() for value in networks.model.parameters()]).detach()
    assert terms["generator_gradient_norm"] > 1e-2
    assert (after - before).norm().item() == pytest.approx(1e-3 * 0.01, rel=1e-2)  # times the learning rate


def test_adaptive_weight_balances_the_last_layer(make: Make) -> None:
    """Eq. (2): the factor is half the ratio of the gradients' norms, by autograd on the parts."""
    networks, update = make(loss={"adversarial_weighting": "adaptive", "adversarial_weight": 1.0})
    discriminator = networks.discriminator
    assert discriminator is not None
    image = pixels().float() / 127.5 - 1
    output = update._reconstruct(image, 0)
    _, terms = update._generator_loss(image, output, discriminator, 0)
    output = update._reconstruct(image, 0)
    discriminator.network.eval()
    adversarial = -sum(logit.mean() for logit in discriminator.network(output.sample)) / 2
    reconstruction = (output.sample - image).abs().mean()
    norms = [
        torch.autograd.grad(loss, networks.model.last_layer, retain_graph=True)[0].norm()
        for loss in (reconstruction, adversarial)
    ]
    expected = 0.5 * norms[0] / (norms[1] + 1e-4)
    torch.testing.assert_close(terms["adversarial_weight"], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("weighting", ["constant", "adaptive"])
def test_gradient_ratio_is_that_of_autograd(make: Make, weighting: str) -> None:
    """Figure 7, by hand: before any weight, at the decoder's last layer; every second step, or free."""
    networks, update = make(
        train={"gradient_ratio_every": 2 if weighting == "constant" else 0},
        loss={"adversarial_weighting": weighting, "l1_weight": 0.25, "adversarial_weight": 7.0},
    )
    discriminator = networks.discriminator
    assert discriminator is not None
    for step in range(3):
        image = pixels().float() / 127.5 - 1
        output = update._reconstruct(image, step * 4)
        discriminator.network.eval()
        adversarial = -sum(logit.mean() for logit in discriminator.network(output.sample)) / 2
        discriminator.network.train()
        reconstruction = 0.25 * (output.sample - image).abs().mean()
        norms = [
            torch.autograd.grad(loss, networks.model.last_layer, retain_graph=True)[0].norm()
            for loss in (reconstruction, adversarial)
        ]
        terms = update(pixels(), step)
        assert ("adversarial_gradient_ratio" in terms) == (weighting == "adaptive" or step % 2 == 0)
        if "adversarial_gradient_ratio" in terms:
            expected = (norms[1] / norms[0]).detach()
            torch.testing.assert_close(terms["adversarial_gradient_ratio"], expected, rtol=1e-4, atol=0)


def test_measuring_the_gradient_ratio_changes_nothing(make: Make) -> None:
    states = []
    for every in (0, 1):
        networks, update = make(train={"gradient_ratio_every": every})
        for step in range(2):
            update(pixels(), step)
        states.append([learner.network.state_dict() for learner in networks.learners])
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def test_no_gradient_ratio_before_the_discriminator(make: Make) -> None:
    _, update = make(train={"gradient_ratio_every": 1}, loss={"adversarial_start": 1})
    assert ["adversarial_gradient_ratio" in update(pixels(), step) for step in range(2)] == [False, True]


def test_r1_is_applied_every_so_many_steps(make: Make) -> None:
    networks, update = make(discriminator={"r1_weight": 1.0, "r1_every": 2})
    assert networks.discriminator is not None
    assert ["r1" in update(pixels(), step) for step in range(4)] == [True, False, True, False]


def test_r1_weighs_as_much_as_at_every_step(make: Make) -> None:
    """Taken at one step of two, it counts twice its weight, beside the hinge loss."""
    networks, update = make(discriminator={"r1_weight": 3.0, "r1_every": 2})
    discriminator = networks.discriminator
    assert discriminator is not None
    image = pixels().float() / 127.5 - 1
    fake = torch.zeros_like(image)
    discriminator.network.eval()  # the power iterations stand still
    with_penalty, terms = update._discriminator_loss(image.clone(), fake, discriminator, 0)
    without, _ = update._discriminator_loss(image.clone(), fake, discriminator, 1)
    assert terms["r1"] > 0
    torch.testing.assert_close(with_penalty - without, 3.0 * 2 * terms["r1"], rtol=1e-4, atol=1e-6)


def test_discriminator_has_its_own_learning_rate_and_betas(make: Make) -> None:
    networks, update = make(discriminator={"learning_rate": 0.5, "betas": [0.1, 0.2]})
    update(pixels(), 0)
    groups = [learner.optimizer.param_groups[0] for learner in networks.learners]
    assert [(group["lr"], group["betas"]) for group in groups] == [(0.01, (0.5, 0.9)), (0.5, (0.1, 0.2))]


def test_gradient_checkpointing_computes_blocks_again(make: Make) -> None:
    counts = []
    for checkpointing in (False, True):
        networks, update = make(train={"gradient_checkpointing": checkpointing})
        calls: list[nn.Module] = []
        for part in (networks.model.encoder, networks.model.decoder):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_hook(lambda module, inputs, output, calls=calls: calls.append(module))
        update(pixels(), 0)
        counts.append((len(calls), len(set(calls))))
    (once, layers), (again, same_layers) = counts
    assert layers == same_layers
    assert again > 1.2 * once


def test_discriminator_judges_a_reconstruction_without_a_history(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    discriminator_loss = Update._discriminator_loss

    def recorded(update: Update, image: torch.Tensor, reconstruction: torch.Tensor, *args: Any) -> Any:
        seen.append(reconstruction)
        return discriminator_loss(update, image, reconstruction, *args)

    monkeypatch.setattr(Update, "_discriminator_loss", recorded)
    _, update = make()
    update(pixels(), 0)
    assert [tensor.requires_grad for tensor in seen] == [False]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_gradients_lie_in_memory_as_their_parameters(make: Make, precision: str) -> None:
    """What the fused Adam of a CPU takes for granted."""
    networks, update = make(train={"mixed_precision": precision})
    layouts: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def compare(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            assert parameter.grad is not None
            layouts.append((parameter.grad.stride(), parameter.stride()))

    for learner in networks.learners:
        learner.optimizer.register_step_pre_hook(compare)
    update(pixels(), 0)
    assert layouts
    assert [gradient for gradient, _ in layouts] == [parameter for _, parameter in layouts]


@pytest.mark.slow
def test_compiled_update_is_the_eager_one(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """train.compile=true, with the graphs that torch.compile makes and no code generated from them."""
    compile_module = nn.Module.compile
    parts: list[str] = []

    def compiled(module: nn.Module) -> None:
        parts.append(type(module).__name__)
        compile_module(module, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compiled)
    losses = []
    for is_compiled in (True, False):
        _, update = make(train={"compile": is_compiled})
        losses.append([update(pixels(), step) for step in range(2)])
    assert parts == ["Encoder", "Decoder", "UNetDiscriminator"]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-4)


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    yield
    torch.manual_seed(0)
