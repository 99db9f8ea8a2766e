"""Discriminators: the published sizes, what they are shown, and their losses."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldcast.layers.discriminators import Discriminators, PatchDiscriminator, sequence_places, sequences


@pytest.mark.parametrize("channels", [3, 18, 64])
def test_the_layers_are_the_published_ones(channels):
    judge = PatchDiscriminator(channels)
    shapes = [tuple(weight.shape) for weight in judge.parameters()]
    widths = [channels, 64, 128, 256, 512, 64]
    assert shapes == [(out, into, 4, 4) for into, out in pairwise(widths)]
    # 128 -> 64 -> 32 -> 16 by halving, then 17 and 18 by a padding of 2.
    assert judge(torch.rand(1, channels, 128, 128)).shape == (1, 64, 18, 18)
    assert judge(torch.rand(1, channels, 16, 16)).isfinite().all()


def test_pictures_do_not_mix():
    judge, pictures = PatchDiscriminator(2).double(), torch.rand(3, 2, 16, 20, dtype=torch.float64)
    together = judge(pictures)
    torch.testing.assert_close(together[1:2], judge(pictures[1:2]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_frames", [1, 3, 6])
def test_extrapolated_sequences_are_the_newest_inputs_and_the_forecasts_so_far(num_frames):
    inputs, targets = torch.arange(5.0), torch.arange(10.0, 15)
    frames = [values.reshape(1, 5, 1, 1, 1) for values in (inputs, targets)]
    places = sequence_places(torch.arange(-4.0, 1)[None], torch.arange(1.0, 6)[None], num_frames)
    shown = sequences(*frames, places)[:, :, 0, 0]
    everything = torch.cat([inputs, targets])
    for step in range(5):
        assert shown[step].tolist() == everything[5 + step + 1 - num_frames : 5 + step + 1].tolist()


times = st.lists(st.integers(-6, 6), min_size=1, max_size=5, unique=True).map(sorted)


@settings(max_examples=25, deadline=None)
@given(input_times=times, target_times=times, num_frames=st.integers(1, 6))
def test_a_sequence_is_in_order_of_time_and_ends_with_its_target(input_times, target_times, num_frames):
    places = sequence_places(torch.tensor([input_times]), torch.tensor([target_times]), num_frames)[0].tolist()
    known = sorted([(time, 0, place) for place, time in enumerate(input_times)]
                   + [(time, 1, len(input_times) + place) for place, time in enumerate(target_times)])  # fmt: skip
    order = [place for _, _, place in known]
    for step, found in enumerate(places):
        end = order.index(len(input_times) + step) + 1
        expected = order[max(end - num_frames, 0) : end]
        assert found == [order[0]] * (num_frames - len(expected)) + expected


def test_losses_are_least_squares_of_both_judges():
    torch.manual_seed(1)
    judges = Discriminators(1, 2).double()
    inputs, forecasts, truths = torch.rand(3, 2, 2, 1, 16, 16, dtype=torch.float64)
    input_times, target_times = torch.tensor([[-1.0, 0.0]] * 2), torch.tensor([[1.0, 2.0]] * 2)
    adversarial, own = judges(forecasts, truths, inputs, sequence_places(input_times, target_times, 2))
    image_fake, image_real = (judges.image(frames.reshape(4, 1, 16, 16)) for frames in (forecasts, truths))
    sequence_fake, sequence_real = (
        judges.sequence(torch.stack([torch.cat(pair) for sample in range(2) for pair in
                                     ((inputs[sample, 1], frames[sample, 0]), (frames[sample, 0], frames[sample, 1]))]))
        for frames in (forecasts, truths)
    )  # fmt: skip
    expected = (image_fake - 1).square().mean() + (sequence_fake - 1).square().mean()
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-12)
    expected = sum(
        ((real - 1).square().mean() + fake.square().mean()) / 2
        for real, fake in ((image_real, image_fake), (sequence_real, sequence_fake))
    )
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-12)


def test_judges_learn_to_tell_what_differs():
    torch.manual_seed(2)
    judges = Discriminators(1, 2)
    inputs, noise = torch.rand(2, 2, 2, 1, 16, 16)
    forecasts, truths = noise.mean(dim=(3, 4), keepdim=True).expand_as(noise) + 0.01 * noise, noise
    places = sequence_places(torch.tensor([[-1.0, 0.0]] * 2), torch.tensor([[1.0, 2.0]] * 2), 2)
    optimizer = torch.optim.Adam(judges.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        own = judges(forecasts, truths, inputs, places)[1]
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
        losses.append(own.item())
    assert losses[-1] < 0.5 * losses[0]
