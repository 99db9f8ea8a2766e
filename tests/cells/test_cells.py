"""Each cell against a plain float64 reading of its equations."""

import numpy as np
import pytest
import torch
from oracles import cells as oracle

from fieldcast.cells import ConvGRUCell, ConvLSTMCell, TrajGRUCell

SIZES = [(4, 4), (5, 7), (6, 3), (2, 9)]


def randomise(cell, seed=0, scale=0.5):
    """Weights of any size and sign, also where a cell starts from zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return cell


def arrays(cell):
    return {name: value.double().numpy() for name, value in cell.state_dict().items()}


def draw(cell, input_width, size, seed=1, dtype=torch.float64):
    """A frame, or None, and a state full of numbers, for a batch of two."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randn(2, max(input_width, 1), *size, generator=generator, dtype=dtype)
    state = type(cell.start(frame))(
        *(torch.randn(part.shape, generator=generator, dtype=dtype) for part in cell.start(frame))
    )
    return frame if input_width else None, state


def check(cell, input_width, size, plain):
    randomise(cell.double())
    frame, state = draw(cell, input_width, size)
    with torch.no_grad():
        result = cell(frame, state)
    for sample in range(2):
        expected = plain(
            arrays(cell),
            None if frame is None else frame[sample].numpy(),
            *(part[sample].numpy() for part in state),
        )
        expected = expected if isinstance(expected, tuple) else (expected,)
        for part, wanted in zip(result, expected, strict=True):
            assert part.dtype == torch.float64
            np.testing.assert_allclose(part[sample].numpy(), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("peephole", ["none", "channel", "pixel"])
@pytest.mark.parametrize(("input_width", "bias", "forget_bias"), [(2, True, 0.0), (3, False, 1.0), (0, True, 0.5)])
def test_convlstm_is_its_equations(input_width, bias, forget_bias, peephole, size):
    cell = ConvLSTMCell(input_width, 3, 3, 5, peephole=peephole, bias=bias, forget_bias=forget_bias, map_size=size)

    def plain(weights, frame, hidden, memory):
        return oracle.convlstm(weights, frame, hidden, memory, forget_bias)

    check(cell, input_width, size, plain)


@pytest.mark.parametrize("size", [(5, 7), (2, 9)])
@pytest.mark.parametrize(("input_width", "peephole"), [(2, "none"), (0, "pixel")])
def test_convlstm_with_a_bias_per_pixel_is_its_equations(input_width, peephole, size):
    cell = ConvLSTMCell(input_width, 3, 3, 5, peephole=peephole, bias="pixel", map_size=size)
    assert cell.pixel_bias.numel() == 4 * 3 * size[0] * size[1]
    assert cell.state_gates.bias is None
    check(cell, input_width, size, oracle.convlstm)


def test_the_bias_of_a_convlstm_is_in_one_place_only():
    names = {bias: set(ConvLSTMCell(2, 3, bias=bias, map_size=(4, 5)).state_dict()) for bias in (True, False, "pixel")}
    assert names[True] == {"input_gates.weight", "state_gates.weight", "state_gates.bias"}
    assert names[False] == names[True] - {"state_gates.bias"}
    assert names["pixel"] == names[False] | {"pixel_bias"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("memory", ["tanh", "leaky"])
@pytest.mark.parametrize(("input_width", "kernel", "dilation"), [(2, 3, 1), (1, 3, 2), (0, 5, 1)])
def test_convgru_is_its_equations(input_width, kernel, dilation, memory, size):
    cell = ConvGRUCell(input_width, 3, 3, kernel, state_dilation=dilation, memory=memory)

    def plain(weights, frame, hidden):
        return oracle.convgru(weights, frame, hidden, memory, dilation)

    check(cell, input_width, size, plain)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("memory", ["tanh", "leaky"])
@pytest.mark.parametrize(("input_width", "num_links", "options"), [
    (2, 1, {}),
    (1, 3, {"flow_kernel": 5, "flow_width": 2}),
    (0, 4, {}),
])  # fmt: skip
def test_trajgru_is_its_equations(input_width, num_links, options, memory, size):
    cell = TrajGRUCell(input_width, 3, num_links, memory=memory, **options)

    def plain(weights, frame, hidden):
        return oracle.trajgru(weights, frame, hidden, memory)

    check(cell, input_width, size, plain)


def test_a_trajgru_that_starts_from_zero_flows_starts_as_a_gru_of_1x1_state_kernels():
    cell = TrajGRUCell(2, 3, 5, zero_flow=True).double()
    frame, state = draw(cell, 2, (5, 6))
    plain = ConvGRUCell(2, 3, 3, 1).double()
    plain.input_gates.load_state_dict(cell.input_gates.state_dict())
    with torch.no_grad():
        plain.state_gates.weight.copy_(cell.state_gates.weight.unflatten(1, (3, 5)).sum(2))
        plain.state_gates.bias.copy_(cell.state_gates.bias)
    torch.testing.assert_close(cell(frame, state).hidden, plain(frame, state).hidden, rtol=0, atol=1e-12)


SMALL = {
    "convlstm": lambda input_width: ConvLSTMCell(input_width, 2, peephole="channel"),
    "convgru": lambda input_width: ConvGRUCell(input_width, 2),
    "trajgru": lambda input_width: TrajGRUCell(input_width, 2, 2),
}
every_cell = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)


@every_cell
@pytest.mark.parametrize("input_width", [0, 1])
def test_gradients_are_those_of_finite_differences(make, input_width):
    cell = randomise(make(input_width).double())
    frame, state = draw(cell, input_width, (3, 4))
    names = [name for name, _ in cell.named_parameters()]
    tensors = [tensor[:1].requires_grad_() for tensor in (*state, *([] if frame is None else [frame]))]

    def step(*values):
        weights, rest = dict(zip(names, values[: len(names)], strict=True)), values[len(names) :]
        new_state = type(state)(*rest[: len(state)])
        new_frame = rest[len(state)] if len(rest) > len(state) else None
        return tuple(torch.func.functional_call(cell, weights, (new_frame, new_state)))

    assert torch.autograd.gradcheck(step, (*cell.parameters(), *tensors), fast_mode=True)


@every_cell
@pytest.mark.parametrize("input_width", [0, 3])
def test_float32_is_close_to_float64(make, input_width):
    cell = randomise(make(input_width))
    frame, state = draw(cell, input_width, (9, 7), dtype=torch.float32)
    result = cell(frame, state)
    wide = cell.double()(None if frame is None else frame.double(), type(state)(*(part.double() for part in state)))
    for part, wanted in zip(result, wide, strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part.double(), wanted, rtol=0, atol=1e-5)


@every_cell
@pytest.mark.parametrize("input_width", [0, 3])
@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_autocast_is_near_float32(make, input_width, state_dtype):
    cell = randomise(make(input_width), scale=0.2)
    frame, state = draw(cell, input_width, (24, 24), dtype=torch.float32)
    rounded = type(state)(*(part.to(state_dtype) for part in state))
    with torch.autocast("cpu", torch.bfloat16):
        result = cell(frame, rounded)
    sum(part.float().square().sum() for part in result).backward()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())
    for part, wanted in zip(result, cell(frame, state), strict=True):
        assert part.dtype in (torch.bfloat16, torch.float32)
        torch.testing.assert_close(part.float(), wanted, rtol=0, atol=0.06)


@pytest.mark.parametrize("kernel", [2, 4])
def test_an_even_kernel_is_refused(kernel):
    with pytest.raises(ValueError, match=f"odd kernel, not {kernel}"):
        ConvGRUCell(1, 2, state_kernel=kernel)


@pytest.mark.parametrize("name", ["peephole", "bias"])
def test_what_is_per_pixel_needs_the_map(name):
    with pytest.raises(ValueError, match=f"a {name} per pixel needs map_size"):
        ConvLSTMCell(1, 2, **{name: "pixel"})
