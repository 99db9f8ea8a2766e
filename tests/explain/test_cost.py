"""What kernels cost, against counted operations and the figures of the runoff note's model."""

import pytest
import torch
from explain.test_linear_kernels import make_network
from torch.utils.flop_counter import FlopCounterMode

from fieldcast.explain.backward import kept_bytes
from fieldcast.explain.cost import (
    Cost,
    Sizes,
    adjoint_multiply_adds,
    cheapest_method,
    cost_of,
    forward_multiply_adds,
    note_multiply_adds,
)
from fieldcast.explain.linear_kernels import describe_run, linear_kernels, predicted_seconds

PROJECT = Sizes(
    num_outputs=97, num_rows=97, num_steps=30, num_fields=4, width=9, num_pixels=74 * 81, num_taps=49,
    omega=97 * (256 * 512 + 512 * 9 * 74 * 81),
)  # fmt: skip


def test_the_note_s_model():
    assert adjoint_multiply_adds(PROJECT) == pytest.approx(4.0e11, rel=0.02)
    assert adjoint_multiply_adds(PROJECT._replace(num_steps=0)) == pytest.approx(2.7e9, rel=0.01)
    assert forward_multiply_adds(PROJECT) == pytest.approx(1.0e15, rel=0.2)
    assert note_multiply_adds(PROJECT) == pytest.approx(1.2e17, rel=0.03)


def counted(network, reference, method):
    """Multiply-adds of convolutions and matrix products that the kernels go through."""
    with FlopCounterMode(display=False) as counter:
        linear_kernels(network, reference, method, memory_megabytes=0.1)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("method", ["adjoint", "forward"])
def test_the_recursions_cost_what_is_counted(method):
    # As many fields and hidden channels as vectors hold, for those that are added are not in the formula.
    network, reference = make_network((5, 6), 6, hidden_width=4, num_fields=4, kernel=5, head_widths=[9, 40])
    longer, last = make_network((5, 6), 7, hidden_width=4, num_fields=4, kernel=5, head_widths=[9, 40])
    # What the reference itself takes is in neither formula, and cancels with the outputs.
    fewer = network.with_outputs(slice(2))
    if method == "adjoint":
        found = counted(network, reference, method) - counted(fewer, reference, method)
        expected = cost_of(network, reference, method).multiply_adds - cost_of(fewer, reference, method).multiply_adds
        assert found == pytest.approx(expected, rel=0.01)
    else:
        found = counted(longer, last, method) - counted(network, reference, method)
        expected = cost_of(longer, last, method).multiply_adds - cost_of(network, reference, method).multiply_adds
        assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("megabytes", [1e-9, 512])
def test_going_back_costs_what_is_counted(megabytes):
    network, reference = make_network((6, 6))
    cost = cost_of(network, reference, "backward", megabytes)
    with FlopCounterMode(display=False) as counter:
        linear_kernels(network, reference, "backward", memory_megabytes=megabytes)
    # Before it, one pass measures what is kept; backward and forward pass are about as dear.
    assert counter.get_total_flops() / 2 == pytest.approx(cost.multiply_adds, rel=0.25)
    assert cost.working_bytes == 3 * kept_bytes(network, reference) * (6 if megabytes > 1 else 1)
    assert cost.result_bytes == 6 * reference.nbytes


def test_kept_memory_is_found_as_it_grows():
    small, large = (kept_bytes(*make_network((8, 8), count)) for count in (2, 8))
    assert 3 * small < large < 6 * small
    # Of each step four gates, the cell and its tanh, of 3 channels.
    assert large > 8 * 6 * 3 * 64 * 8


def test_the_way_that_takes_least():
    assert cheapest_method(*make_network((6, 7), num_inputs=5)) == "adjoint"
    assert cheapest_method(*make_network((1, 1), num_inputs=1, target_times=(0.0, 1.0, 2.0), num_fields=1)) == "forward"
    network, reference = make_network((1, 1), num_inputs=1, num_fields=1)
    expected = linear_kernels(network, reference, "backward")
    torch.testing.assert_close(linear_kernels(network, reference).weights, expected.weights, rtol=0, atol=1e-12)


def test_a_cost_is_told_in_one_line():
    cost = Cost("adjoint", 97, (30, 7, 60, 60), 1.4e11, 293_328_000, 2_100_000_000)
    assert cost.describe() == (
        "97 kernels of 30 x 7 x 60 x 60 (adjoint): 1.4e+11 multiply-adds, 293 MB result + 2.1 GB"
    )
    assert "multiply-adds, about 12 s, 293 MB" in cost.describe(12.3)


@pytest.mark.parametrize("method", ["auto", "backward", "forward"])
def test_a_run_is_foretold(method):
    network, reference = make_network((6, 7), num_inputs=5)
    line = describe_run(network, reference, method)
    assert line.startswith(f"6 kernels of 5 x 2 x 6 x 7 ({'adjoint' if method == 'auto' else method}): ")
    assert predicted_seconds(network, reference, "adjoint") > 0
