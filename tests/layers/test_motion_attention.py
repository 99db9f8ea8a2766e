"""Attention by motion: its own gradient, its memory, and what it costs to look back."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fieldcast.layers.motion_attention import DecodingAttention, EncodingAttention, MeanTanh


def maps(count, dtype=torch.float64, size=(3, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, 3, *size, dtype=dtype, generator=generator, requires_grad=dtype == torch.float64)
        for _ in range(count)
    ]


def test_mean_tanh_is_what_it_says():
    shift, *features = maps(4)
    expected = torch.stack([torch.tanh(one + shift).mean((2, 3)) for one in features])
    torch.testing.assert_close(MeanTanh.apply(shift, *features), expected)


def test_mean_tanh_has_the_right_gradients():
    assert gradcheck(MeanTanh.apply, maps(3))
    assert gradgradcheck(MeanTanh.apply, maps(3, size=(2, 2)))


def test_mean_tanh_goes_through_vmap_and_jacobians():
    shift, *features = (one.detach() for one in maps(3))
    jacobian = torch.func.jacrev(lambda value: MeanTanh.apply(value, *features))(shift)
    slopes = torch.stack([1 - torch.tanh(one + shift).square() for one in features]) / shift[0, 0].numel()
    for sample in range(2):
        for channel in range(3):
            torch.testing.assert_close(jacobian[:, sample, channel, sample, channel], slopes[:, sample, channel])


def test_mean_tanh_keeps_nothing_but_its_inputs():
    inputs = maps(4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.data_ptr()) or one, lambda one: one):
        MeanTanh.apply(*inputs).sum()
    assert set(kept) <= {one.data_ptr() for one in inputs}


@pytest.mark.parametrize("kind", [EncodingAttention, DecodingAttention])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_at_once_is_one_by_one(kind, dtype):
    torch.manual_seed(1)
    attend = kind(3).to(dtype)
    frames = [one.detach().to(dtype) for one in maps(5)]
    times = torch.tensor([[-4.0, -2.5, -1.0, -0.5, 0.0], [-9.0, -8.0, -4.0, -3.0, 0.0]])
    together, memory = attend(torch.cat(frames), times, ())
    kept, alone = (), []
    for number, frame in enumerate(frames):
        result, kept = attend(frame, times[:, number : number + 1], kept)
        alone.append(result)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    assert len(memory) == len(kept) == 5


def test_a_window_forgets_what_is_older():
    torch.manual_seed(1)
    attend = DecodingAttention(3, window=2).double()
    frames = [one.detach() for one in maps(5)]
    times = torch.arange(5.0).expand(2, -1)
    _, memory = attend(torch.cat(frames), times, ())
    assert len(memory) == 2
    # The acceleration of the older one in the window goes back two maps more.
    old = [frames[0] + 1, *frames[1:]]
    with torch.no_grad():
        before, after = (attend(torch.cat(one), times, ())[0][-2:] for one in (frames, old))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-12)


def test_one_map_is_its_own_attention():
    torch.manual_seed(1)
    attend = EncodingAttention(3).double()
    frame = maps(1)[0].detach()
    attended, _ = attend.attention(frame, torch.zeros(2, 1), ())
    torch.testing.assert_close(attended, frame)


def test_each_step_computes_only_its_own_maps():
    """One convolution of each kind for a map, whenever it comes: nothing is computed twice."""
    attend = DecodingAttention(3, window=10)
    calls = []
    attend.attention.past.register_forward_hook(lambda module, given, result: calls.append(len(given[0])))
    memory = ()
    for number in range(6):
        frame = torch.rand(2, 3, 4, 4)
        _, memory = attend(frame, torch.full((2, 1), float(number)), memory)
    assert calls == [2] * 6


def test_times_keep_their_digits_under_mixed_precision():
    torch.manual_seed(1)
    attend = EncodingAttention(3)
    frames = torch.rand(4, 3, 4, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = [
            attend.attention(frames, torch.tensor([[-33.0 - late, 0.0]] * 2), ())[1][0].score for late in (0, 0.05)
        ]
    assert scores[0].dtype == torch.float32
    assert not torch.equal(*scores)
