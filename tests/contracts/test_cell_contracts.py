"""What every cell of ``CELLS`` must do; a new cell is tested because it is listed."""

import pytest
import torch

from fieldcast.cells import CELLS
from fieldcast.models.encoder_forecaster.unroll import unroll

# The arguments a cell needs beyond its input and hidden width, small.
OPTIONS = {"convlstm": {"peephole": "channel", "forget_bias": 1.0}, "convgru": {}, "trajgru": {"num_links": 3}}

every_cell = pytest.mark.parametrize("key", CELLS)
with_and_without_input = pytest.mark.parametrize("input_width", [2, 0])


def make(key, input_width, dtype=torch.float32):
    torch.manual_seed(0)
    cell = CELLS[key](input_width, 4, **OPTIONS[key]).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return cell


def draw(cell, input_width, batch=3, size=(6, 7)):
    like = torch.randn(batch, max(input_width, 1), *size, dtype=next(cell.parameters()).dtype)
    state = type(cell.start(like))(*(torch.randn_like(part) for part in cell.start(like)))
    return like if input_width else None, state


def pick(state, samples):
    return type(state)(*(part[samples] for part in state))


def test_every_cell_is_described_here():
    assert set(OPTIONS) == set(CELLS), "add the new cell's options to OPTIONS"


@every_cell
@with_and_without_input
def test_every_weight_receives_a_gradient(key, input_width):
    cell = make(key, input_width, torch.float64)
    frame, state = draw(cell, input_width)
    sum(part.square().sum() for part in cell(frame, cell(frame, state))).backward()
    for name, parameter in cell.named_parameters():
        assert (parameter.grad != 0).all(), f"{name} holds dead weights"


@every_cell
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (13, 17)])
def test_any_map_size_and_a_state_of_zeros(key, size):
    cell = make(key, 2)
    frame, _ = draw(cell, 2, size=size)
    state = cell.start(frame)
    assert all(part.shape == (3, 4, *size) and part.count_nonzero() == 0 for part in state)
    result = cell(frame, state)
    assert isinstance(result, type(state))
    assert isinstance(result, tuple)
    assert hasattr(result, "_fields")
    for part, before in zip(result, state, strict=True):
        assert part.shape == before.shape
        assert part.isfinite().all()


@every_cell
@with_and_without_input
def test_state_is_a_value(key, input_width):
    cell = make(key, input_width)
    frame, state = draw(cell, input_width)
    before = [part.clone() for part in state]
    kept = set(vars(cell))
    first, second = cell(frame, state), cell(frame, state)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert all(torch.equal(*pair) for pair in zip(state, before, strict=True))
    assert set(vars(cell)) == kept


@every_cell
@with_and_without_input
def test_samples_do_not_mix(key, input_width):
    cell = make(key, input_width)
    frame, state = draw(cell, input_width)
    together = cell(frame, state)
    for sample in range(3):
        only = slice(sample, sample + 1)
        alone = cell(None if frame is None else frame[only], pick(state, only))
        for part, wanted in zip(together, alone, strict=True):
            torch.testing.assert_close(part[only], wanted, rtol=0, atol=1e-5)


@every_cell
def test_input_and_state_both_matter(key):
    cell = make(key, 2)
    frame, state = draw(cell, 2)
    result = cell(frame, state).hidden
    assert not torch.allclose(result, cell(frame + 1, state).hidden)
    assert not torch.allclose(result, cell(frame, type(state)(*(part + 1 for part in state))).hidden)


@every_cell
def test_all_inputs_projected_at_once_are_the_cell_step_by_step(key):
    cell = make(key, 2, torch.float64)
    frames = torch.randn(4, 3, 2, 6, 7, dtype=torch.float64)
    hidden, last = unroll(cell, frames.flatten(0, 1), cell.start(frames[0]), 4)
    state = cell.start(frames[0])
    for step, frame in enumerate(frames):
        state = cell(frame, state)
        torch.testing.assert_close(hidden.unflatten(0, (4, 3))[step], state.hidden, rtol=0, atol=1e-12)
    for part, wanted in zip(last, state, strict=True):
        torch.testing.assert_close(part, wanted, rtol=0, atol=1e-12)


@every_cell
def test_the_memory_layout_changes_nothing(key):
    cell = make(key, 2)
    frame, state = draw(cell, 2)
    expected = cell(frame, state)
    last = {"memory_format": torch.channels_last}
    result = cell.to(**last)(frame.contiguous(**last), type(state)(*(part.contiguous(**last) for part in state)))
    for part, wanted in zip(result, expected, strict=True):
        torch.testing.assert_close(part, wanted, rtol=0, atol=1e-5)


@every_cell
def test_weights_round_trip(key):
    first, second = make(key, 2), CELLS[key](2, 4, **OPTIONS[key])
    second.load_state_dict(first.state_dict())
    frame, state = draw(first, 2)
    assert all(torch.equal(*pair) for pair in zip(first(frame, state), second(frame, state), strict=True))
