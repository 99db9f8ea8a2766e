"""What the tests of models with a latent vector share: small models with weights of any sign, batches at own times."""

import torch

from fieldcast.data import Batch
from fieldcast.models import build

# Before, between, at and after the inputs, and otherwise in each sample.
TARGET_TIMES = torch.tensor([[-4.0, -2.5, -1.2, 0.0, 1.3], [0.2, 0.9, 1.0, 4.0, 4.1]], dtype=torch.float64)


def make_latent(key, seed=0, num_channels=2, **settings):
    """A model in float64 and its weights as arrays."""
    torch.manual_seed(seed)
    model = build(key, num_channels=num_channels, **settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return model.eval(), {name: value.numpy() for name, value in model.state_dict().items()}


def batch_at(input_times, target_times=TARGET_TIMES, size=(12, 8), num_channels=2):
    """Noise at these times, nothing missing."""
    generator = torch.Generator().manual_seed(5)
    inputs, targets = (
        torch.rand(*times.shape, num_channels, *size, generator=generator, dtype=torch.float64)
        for times in (input_times, target_times)
    )
    valid, origin = torch.ones_like(targets, dtype=torch.bool), torch.zeros(len(inputs), dtype=torch.int64)
    return Batch(inputs, input_times, targets, target_times, valid, origin)


def seen(batch):
    """What ``forward`` takes of a batch."""
    return batch.inputs, batch.input_times, batch.target_times


def train_a_little(key, batch, **settings):
    """Losses of twenty steps, penalties included."""
    torch.manual_seed(0)
    model = build(key, num_channels=batch.inputs.shape[2], **settings).double().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        frames, penalties = model.forward_train(batch)
        loss = (frames - batch.targets).square().mean() + sum(penalties.values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def check_that_a_batch_is_its_samples_alone(model, batch):
    with torch.no_grad():
        together = model(*seen(batch))
        for sample in range(2):
            alone = model(*seen(batch[sample : sample + 1]))
            torch.testing.assert_close(together[sample : sample + 1], alone, rtol=0, atol=1e-12)


def check_that_the_clock_may_start_anywhere(model, batch):
    shifted = model(batch.inputs, batch.input_times + 7, batch.target_times + 7)
    torch.testing.assert_close(shifted, model(*seen(batch)), rtol=0, atol=1e-10)
