"""The single reference sequence whose linear kernels fit a series best: among the data, and by search from there.

Shapes: N sequences, T input frames, C fields, H rows, W columns, Q outputs, M references: Q, or 1 that all share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from fieldcast.data.dataset import spread
from fieldcast.errors import ConfigError, DataError
from fieldcast.explain.linear_kernels import LinearKernels, join_kernels, linear_kernels
from fieldcast.explain.network import Network
from fieldcast.settings import Count, Settings

NUMBERS_AT_ONCE = 1 << 24  # of sequences in float64
MEAN = -1  # number of the mean sequence
CONSTANT = 1e-20  # share of the squares below which their part about the mean is rounding


class SearchSettings(Settings):
    """How the optimal reference is searched for.

    ``shared``: one reference for all outputs, not one for each. ``num_candidates`` sequences of the data, spread
    evenly, are tried; None: all. The search starts from the mean sequence and from the ``num_starts`` best of them that
    it can leave, each time with at most ``max_iterations`` of L-BFGS, which stops earlier where an iteration lowers the
    unexplained share of the variance by less than ``tolerance``.
    """

    shared: bool = False
    num_candidates: Count | None = None
    num_starts: Count = 1
    max_iterations: Count = 60
    tolerance: Annotated[float, Field(ge=0)] = 1e-6


class Series(NamedTuple):
    """What surrogates are fitted to.

    Attributes:
        inputs: (N, T, C, H, W) in physical units without a missing one. A view of overlapping windows is not copied.
        targets: what each output shall be, (N, Q); NaN where that is not known.
    """

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class References:
    """References that were found, and their kernels.

    Attributes:
        sequences: (M, T, C, H, W) in physical units.
        kernels: at the reference of each output, its own or the shared one.
        loss: the share of the targets' variance that the surrogate leaves unexplained, (Q,); NaN where they are
            constant.
        numbers: the sequence of the data that each is or started from, (M,); -1 is the mean sequence.
        num_gradients: gradients that were computed, (M,); 0 where the data alone was searched.
    """

    sequences: Tensor
    kernels: LinearKernels
    loss: Tensor
    numbers: Tensor
    num_gradients: Tensor


def check_series(network: Network, series: Series) -> None:
    """Refuse what nothing can be fitted to.

    Raises:
        DataError: for inputs with gaps, or targets of another shape.
    """
    inputs, targets = series
    if targets.shape != (len(inputs), len(network.outputs)):
        raise DataError(
            f"targets of shape {tuple(targets.shape)}: {len(inputs)} sequences and {len(network.outputs)} outputs "
            f"need {(len(inputs), len(network.outputs))}"
        )
    if not all(part.isfinite().all() for part in _chunks(inputs)):
        raise DataError("some inputs are missing (NaN) or infinite: fill them (Network.filled) or leave them out")


def squares_about_mean(targets: Tensor) -> Tensor:
    """The sum of squares (Q,) of targets (N, Q) about their mean, missing ones (NaN) left out; 0 for rounding."""
    targets = targets.double()
    squares = (targets - targets.nanmean(0)).square().nansum(0)
    return torch.where(squares > CONSTANT * targets.square().nansum(0), squares, 0)


def predict(kernels: LinearKernels, inputs: Tensor) -> Tensor:
    """What the surrogate gives, (N, Q) in float64, some sequences at a time."""
    return torch.cat([kernels.predict(part) for part in _chunks(inputs)])


def _chunks(inputs: Tensor) -> tuple[Tensor, ...]:
    return inputs.split(max(1, NUMBERS_AT_ONCE // inputs[0].numel()))


def unexplained(kernels: LinearKernels, series: Series) -> Tensor:
    """Sum over t of (A_q[t] - R_q[t])^2, where R_q[t] is known, (Q,): runoff note, equation 82."""
    return _errors(predict(kernels, series.inputs), series.targets).square().sum(0)


def _errors(predicted: Tensor, targets: Tensor) -> Tensor:
    """Differences, 0 where the target is not known; a prediction that is NaN stays one."""
    return torch.where(targets.isnan(), 0, predicted - targets)


def best_data_sequences(network: Network, series: Series, settings: SearchSettings) -> References:
    """Of the sequences themselves the one whose kernels fit best, for each output or for all.

    Args:
        network: whose kernels are tried.
        series: both the sequences that are tried and those that the kernels are judged on.
        settings: how many are tried, and whether outputs share one.

    Raises:
        DataError: as ``check_series``.
    """
    candidates, table = _try_data(network, series, settings)
    numbers = [candidates[place] for place in table.argmin(0).tolist()]
    return _collect(network, series, [series.inputs[number] for number in numbers], numbers)


def _try_data(network: Network, series: Series, settings: SearchSettings) -> tuple[list[int], Tensor]:
    """Numbers of sequences, and what each leaves unexplained as a reference, (numbers, M)."""
    check_series(network, series)
    inputs = series.inputs
    candidates = spread(len(inputs), settings.num_candidates)
    losses = [unexplained(linear_kernels(network, inputs[number][None]), series) for number in candidates]
    total = squares_about_mean(series.targets)
    # All are as good for an output that is constant, and one whose kernels are not finite is good for none.
    table = torch.where(total > 0, torch.stack(losses) / total, 0).nan_to_num(nan=torch.inf)
    return candidates, table.sum(1, keepdim=True) if settings.shared else table


def optimal_references(network: Network, series: Series, settings: SearchSettings) -> References:
    """Search, from the best sequence of the data and from the mean on, for the reference that explains most.

    J(X*) = sum_t e_t^2,   e_t = M(X*) + <omega(X*), X^t - X*> - R_t;   grad J = 2 Hess M(X*) sum_t e_t (X^t - X*)

    Runoff note, equations 81 and 82. Of the gradient of e_t only the term with the Hessian is left, so that one
    Hessian-vector product gives the gradient of J, for each output. J is divided by the targets' sum of squares, and of
    a shared reference those of all outputs add up. The search (L-BFGS with a line search for the strong Wolfe
    conditions) is in units of each field's standard deviation. J has many minima, and where a network is piecewise
    linear its Hessian is 0: what is found is never worse than the start, but need not be the best there is.

    Args:
        network: a forecaster whose gradient can be differentiated again.
        series: what the surrogate is fitted to.
        settings: of the search.

    Raises:
        ConfigError: for a forecaster whose gradient can't be differentiated.
        DataError: as ``check_series``.
    """
    candidates, table = _try_data(network, series, settings)
    inputs, found = series.inputs, []
    with network.at_rest():
        for place, losses in enumerate(table.T):
            group = slice(None) if settings.shared else slice(place, place + 1)
            loss = ReferenceLoss(network.with_outputs(group), Series(inputs, series.targets[:, group]))
            ends = [_search(loss, MEAN, inputs.mean(0)[None], settings)]
            moved = 0
            for number in (candidates[row] for row in losses.argsort().tolist()):
                ends.append(_search(loss, number, inputs[number][None], settings))
                # Where a network is linear all around, as behind ReLUs that are shut, the search can't leave.
                moved += ends[-1].num_gradients > 1
                if moved == settings.num_starts:
                    break
            best = min(ends, key=lambda end: end.loss)
            found.append(best._replace(num_gradients=sum(end.num_gradients for end in ends)))
    counts = [end.num_gradients for end in found]
    return _collect(network, series, [end.reference[0] for end in found], [end.number for end in found], counts)


def _collect(
    network: Network, series: Series, sequences: list[Tensor], numbers: list[int], counts: Sequence[int] = ()
) -> References:
    """References with the kernels at them."""
    if len(sequences) == 1:
        kernels = linear_kernels(network, sequences[0][None])
    else:
        # One output each: the others' kernels are not wanted at its reference.
        kernels = join_kernels(
            [
                linear_kernels(network.with_outputs(slice(place, place + 1)), sequence[None])
                for place, sequence in enumerate(sequences)
            ]
        )
    total = squares_about_mean(series.targets)
    loss = torch.where(total > 0, unexplained(kernels, series) / total, torch.nan)
    counted = torch.tensor(counts or [0] * len(sequences))
    return References(torch.stack(sequences), kernels, loss, torch.tensor(numbers), counted)


class ReferenceLoss:
    """J and its gradient at a reference; see ``optimal_references``."""

    def __init__(self, network: Network, series: Series) -> None:
        self.network, self.series = network, series
        self.total = squares_about_mean(series.targets)

    def __call__(self, reference: Tensor) -> tuple[float, Tensor]:
        """J as a share of the targets' variance, added over outputs, and its gradient (1, T, C, H, W)."""
        point = reference.detach().to(self.network.dtype).requires_grad_()
        with torch.enable_grad():
            values = self.network(point)[0]
        loss, gradient = 0.0, torch.zeros_like(point)
        for place, value in enumerate(values):
            if self.total[place] == 0:
                continue  # constant: see ``References.loss``
            with torch.enable_grad():
                # Without it a function that can be differentiated but once would look like a linear one.
                one = torch.ones_like(value, requires_grad=True)
                (weights,) = torch.autograd.grad(value, point, one, create_graph=True)
            errors = self._errors(place, value, weights, point)
            loss += float(errors.square().sum() / self.total[place])
            pull = self._pull(errors, point) * (2 / self.total[place])
            gradient += _hessian_product(weights, point, pull.to(point))
        return loss, gradient

    def _errors(self, place: int, value: Tensor, weights: Tensor, point: Tensor) -> Tensor:
        """e_t (N,) in float64, 0 where the target is not known."""
        offset = value.detach().double() - (weights.detach().double() * point.detach().double()).sum()
        surrogate = LinearKernels(value.detach()[None], offset[None], weights.detach())
        return _errors(predict(surrogate, self.series.inputs)[:, 0], self.series.targets[:, place])

    def _pull(self, errors: Tensor, point: Tensor) -> Tensor:
        """The sum over t of e_t (X^t - X*), (1, T, C, H, W), in float64."""
        pull = -errors.sum() * point.detach().double()
        start = 0
        for part in _chunks(self.series.inputs):
            pull += (errors[start : start + len(part)] @ part.double().flatten(1)).view_as(pull)
            start += len(part)
        return pull


def _hessian_product(weights: Tensor, point: Tensor, vector: Tensor) -> Tensor:
    """Hess M(X*) times the vector, from the gradient of M with its graph."""
    reason = _obstacle(weights)
    if reason is None:
        try:
            return torch.autograd.grad((weights * vector).sum(), point, retain_graph=True, materialize_grads=True)[0]
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
    raise ConfigError(
        f"this forecaster's gradient can't be differentiated again ({reason}), as the optimal reference needs: "
        "take the best data sequence or averaged kernels"
    )


def _obstacle(weights: Tensor) -> str | None:
    """What autograd leaves where a function can be differentiated but once; it would pass it over without a word."""
    found, waiting = set(), [weights.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        if node.name() == "torch::autograd::Error":
            return "one of its functions is marked once_differentiable"
        found.add(node)
        waiting += [following for following, _ in node.next_functions]
    return None


class _End(NamedTuple):
    """Where a search came to: a reference (1, T, C, H, W), what it leaves unexplained, from which number it began."""

    reference: Tensor
    loss: float
    number: int
    num_gradients: int


def _search(loss: ReferenceLoss, number: int, start: Tensor, settings: SearchSettings) -> _End:
    """The best reference on the way of L-BFGS."""
    scale = field_scale(loss.series.inputs)
    moved = torch.zeros_like(start, dtype=torch.float64).requires_grad_()
    best, least, count = start, torch.inf, 0

    def evaluate() -> float:
        nonlocal best, least, count
        reference = (start + moved.detach() * scale).to(start.dtype)
        value, gradient = loss(reference)
        moved.grad = gradient.double() * scale
        count += 1
        if value < least:
            best, least = reference, value
        return value

    search = torch.optim.LBFGS(
        [moved],
        max_iter=settings.max_iterations,
        max_eval=4 * settings.max_iterations,
        tolerance_grad=1e-10,
        tolerance_change=settings.tolerance,
        line_search_fn="strong_wolfe",
    )
    search.step(evaluate)
    return _End(best, least, number, count)


def field_scale(inputs: Tensor) -> Tensor:
    """Standard deviation of each field over all sequences, times and pixels, (C, 1, 1); 1 for one that is constant."""
    mean = inputs.mean((0, 1, 3, 4), keepdim=True, dtype=torch.float64)
    squares = sum((part.double() - mean).square().sum((0, 1, 3, 4)) for part in _chunks(inputs))
    assert isinstance(squares, Tensor)
    scale = (squares / (inputs.numel() / inputs.shape[2])).sqrt()
    return torch.where(scale > 0, scale, 1)[:, None, None]
