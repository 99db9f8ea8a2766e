"""Learn Mackey-Glass x[1] to x[800], forecast x[801] to x[814], and see how far ahead that holds; plots to a FILE."""

import sys
import tempfile

import numpy as np
import torch
from matplotlib.figure import Figure

import fieldcast as fc
from fieldcast.data.mackey_glass import Equation, integrate, lyapunov_exponent

torch.set_num_threads(1)
LAST, FARTHEST, LYAPUNOV_TIME = 800, 600, 1 / lyapunov_exponent(Equation())
x = torch.from_numpy(integrate(Equation(), 1.2, 4000.0)(np.arange(1.0, 4001.0)))  # with a delay of 30
x = (x - x[:LAST].mean()) / x[:LAST].std()


def forecast(model, past, num_steps):
    times = torch.arange(1 - past.shape[1], num_steps + 1.0).expand(len(past), -1)
    return model(past[..., None, None, None], times[:, : past.shape[1]], times[:, past.shape[1] :])[..., 0, 0, 0]


def train(window, at_once, widths=(8,), kernels=(5,), head="nonlinear"):
    torch.manual_seed(0)
    model = fc.build("conv1d", window=window, steps_at_once=at_once, widths=widths, kernels=kernels, head=head).double()
    past, future = x[:LAST].unfold(0, window + at_once, 1).split([window, at_once], dim=1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=150, history_size=30, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        error = (forecast(model, past, at_once) - future).square().mean()
        error.backward()
        return error

    if widths:
        optimizer.step(loss)
    else:  # a linear autoregression has its minimum in closed form
        fit = torch.linalg.lstsq(torch.nn.functional.pad(past, (0, 1), value=1.0), future).solution
        model.output.weight.data, model.output.bias.data = fit[:-1].T, fit[-1]
    return model


models = {"persistence": (1, fc.build("persistence"))}
models |= {f"linear, {w} inputs, 14 at once": (w, train(w, 14, (), (), "linear")) for w in (5, 40)}
models |= {f"conv1d, {w} inputs, {n} at once": (w, train(w, n)) for w in (5, 20, 40) for n in (14, 1)}
near, far = (figure := Figure((11, 4.5), layout="constrained")).subplots(1, 2)
for name, (window, model) in models.items():  # forecasts from x[800] on, and from every 13th time after it
    past, future = x[LAST - window :].unfold(0, window + FARTHEST, 13).split([window, FARTHEST], dim=1)
    error = ((found := forecast(model, past, FARTHEST).detach()) - future).abs().nan_to_num(torch.inf)
    holds = (error < 0.4).cumprod(dim=1).sum(dim=1).double().median() / LYAPUNOV_TIME
    first, every = (part[:, :14].square().mean().sqrt() for part in (error[:1], error))
    print(f"{name:30} error {first:.3f}, from everywhere {every:.3f}, holds for {holds:.2f} Lyapunov times")
    near.plot(range(801, 815), found[0, :14], ".--", linewidth=0.5)
    far.semilogy(torch.arange(1, FARTHEST + 1) / LYAPUNOV_TIME, error.median(dim=0).values, label=name)
near.plot(range(781, 815), x[780:814], "k")
near.set(xlabel="time", ylabel="x, in standard deviations from its mean")
far.set(xlabel="lead time / Lyapunov time", ylabel="median error / standard deviation", ylim=(1e-4, 4))
far.legend(fontsize=7)
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp() + "/mackey-glass.png", dpi=110)
