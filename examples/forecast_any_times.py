"""Build a TrajGRU and ask it for other lead times in each sample; nothing is trained here."""

import torch

import fieldcast as fc

model = fc.build("trajgru", widths=[8, 16, 16], strides=[2, 2, 2], num_links=5)
inputs = torch.rand(2, 10, 1, 61, 83)
input_times = torch.arange(-9.0, 1.0).expand(2, -1)
target_times = torch.tensor([[1.0, 2.0, 6.0], [3.0, 4.0, 12.0]])

with torch.inference_mode():
    frames = model(inputs, input_times, target_times)
print("forecast", tuple(frames.shape), "from", tuple(inputs.shape))
