"""Do slices of a batch and a model prepared for inference give the same as the plain one?"""

from __future__ import annotations

import copy

import pytest
import torch

from litevae import LiteVAE
from litevae.cost import peak_tensor_bytes
from litevae.models import serving
from litevae.models.encoder import build_encoder
from litevae.models.serving import bytes_per_sample

from .precision import LAYERS, exact, relative_error, rounded_once


def sizes_of_calls(model: LiteVAE) -> list[int]:
    """Fills with the batch size of every call of encoder and decoder from now on."""
    sizes: list[int] = []
    for part in (model.encoder, model.decoder):
        part.register_forward_pre_hook(lambda _, arguments: sizes.append(arguments[0].shape[0]))
    return sizes


@pytest.mark.parametrize(
    ("slices", "sizes"), [({}, [1, 1, 1]), ({"slice_size": 2}, [2, 1]), ({"memory_budget": 2**40}, [3])]
)
def test_slices_give_the_same(make_model, image, assert_same, slices, sizes):
    model, image = make_model(output_type="wavelet").double(), image.double()
    expected = model(image)
    model.enable_slicing(**slices)
    called = sizes_of_calls(model)
    output = model(image)
    assert called == 2 * sizes
    assert_same(output.latent, expected.latent, 1e-12)
    assert_same(output.sample, expected.sample, 1e-12)
    model.disable_slicing()
    assert torch.equal(model.encode(image).latent_dist.mean, expected.latent)
    assert called[-1] == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_memory_budget_is_kept(make_model, dtype):
    model = make_model().to(dtype)
    images = torch.zeros(8, 3, 64, 64, dtype=dtype)
    with torch.no_grad():
        one, whole = (peak_tensor_bytes(model.encoder, images[:n]) for n in (1, 8))
        budget = one + (whole - one) // 2
        model.enable_slicing(memory_budget=budget)
        called = sizes_of_calls(model)
        results = 8 * 8 * 8 * 8 * dtype.itemsize
        assert peak_tensor_bytes(lambda x: model.encode(x), images) <= budget + images.nbytes + 4 * results
    assert max(called) >= 3


def test_bytes_per_sample_are_those_of_a_larger_batch(make_model):
    model = make_model()
    per_sample = bytes_per_sample(build_encoder, model.architecture, 64, 48, torch.float32)
    with torch.no_grad():
        peaks = [peak_tensor_bytes(model.encoder, torch.zeros(n, 3, 64, 48)) for n in (2, 5)]
    assert peaks[1] - peaks[0] == 3 * per_sample


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"slice_size": 0}, ValueError, "slice_size must be at least 1, got 0"),
        ({"slice_size": 2.0}, TypeError, "slice_size must be an int"),
        ({"memory_budget": -1}, ValueError, "memory_budget must be at least 1"),
        ({"slice_size": 1, "memory_budget": 1}, ValueError, "memory_budget must be left out where slice_size is given"),
    ],
)
def test_bad_slices_are_refused(make_model, arguments, error, message):
    with pytest.raises(error, match=message):
        make_model().enable_slicing(**arguments)


def test_sliced_models_refuse_what_others_refuse(make_model):
    model = make_model()
    model.enable_slicing(memory_budget=1)
    with pytest.raises(TypeError, match=r"image must be a torch\.Tensor"):
        model.encode([0.0])
    with pytest.raises(TypeError, match=r"latent must be a torch\.Tensor"):
        model.decode([0.0])
    assert model.encode(torch.empty(0, 3, 8, 8)).latent_dist.mean.shape == (0, 4, 1, 1)


@pytest.mark.parametrize("normalization", ["group_norm", "smc"])
def test_optimized_model_is_the_same_and_its_own(make_model, image, assert_same, normalization):
    model = make_model(decoder_normalization=normalization).train()
    state = copy.deepcopy(model.state_dict())
    fast = model.optimize_for_inference()
    assert model.training
    assert not fast.training
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert fast.config.decoder_normalization == {"group_norm": "group_norm", "smc": "none"}[normalization]
    assert_same(fast(image).sample, model.eval()(image).sample)
    for parameter in fast.parameters():
        parameter.zero_()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:this CPU has no instructions for bfloat16")
def test_optimized_model_in_bfloat16(make_model, image):
    model = make_model()
    fast = model.optimize_for_inference(dtype=torch.bfloat16)
    latent = fast.encode(image.bfloat16()).latent_dist.mode()
    assert latent.dtype == torch.bfloat16
    expected = exact(model).encode(image.double()).latent_dist.mode()
    once = relative_error(rounded_once(model).encode(image.bfloat16().double()).latent_dist.mode(), expected)
    assert 0 < relative_error(latent, expected) < LAYERS * once
    assert model.dtype == torch.float32


def test_optimized_model_is_compiled_if_asked(make_model, image, assert_same):
    """The compiler itself is tested in test_wrappers.py; here the compiled model runs eagerly, to save minutes."""
    model = make_model()
    fast = model.optimize_for_inference(compile=True)
    assert fast.encoder._compiled_call_impl is not None
    assert fast.decoder._compiled_call_impl is not None
    assert model.encoder._compiled_call_impl is None
    with torch.compiler.set_stance("force_eager"):
        assert_same(fast(image).sample, model(image).sample)
    assert fast.state_dict().keys() == model.state_dict().keys()


def test_optimize_for_inference_refuses_what_cannot_be(make_model):
    with pytest.raises(TypeError, match=r"dtype must be torch\.bfloat16"):
        make_model().optimize_for_inference(dtype=torch.int8)
    with pytest.raises(ValueError, match=r"cuda_graph must be False .* model\.cuda\(\)"):
        make_model().optimize_for_inference(cuda_graph=True)


@pytest.mark.parametrize("normalization", ["group_norm", "smc"])
def test_optimized_model_slices_as_the_model(make_model, image, normalization):
    model = make_model(decoder_normalization=normalization)
    model.enable_slicing(2)
    called = sizes_of_calls(fast := model.optimize_for_inference())
    fast(image)
    assert called == [2, 1, 2, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("slice_size", [None, 1])
def test_cuda_graph_gives_the_same_and_keeps_older_results(make_model, image, assert_same, slice_size, compile):
    model, image = make_model().cuda(), image.cuda()
    fast = model.optimize_for_inference(cuda_graph=True, compile=compile)
    if slice_size:
        fast.enable_slicing(slice_size)
    with torch.inference_mode():
        for _ in range(3):  # warm-up, capture, replay
            first = fast(image)
        fast(-image)
        assert_same(first.latent, model(image).latent, 1e-3)
        assert_same(first.sample, model(image).sample, 1e-3)


def test_the_budget_of_a_wrapped_encoder_is_the_encoders(make_model, image):
    model = make_model()
    model.enable_slicing(memory_budget=1)
    sizes = []
    measured = serving.bytes_per_sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "bytes_per_sample", lambda kind, *shape: sizes.append(kind) or measured(kind, *shape))
        model.encoder = torch.compile(model.encoder, backend="eager")
        model.encode(image)
    assert sizes == [build_encoder]
