"""EfficientNet-Lite0 in PyTorch, with the same weights: embeds images, and says how long it took.

python in_torch.py WEIGHTS IMAGES.npy FEATURES.npy BATCH_SIZE ROUNDS

Writes the features of all images, and prints the seconds of each round and the versions as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

# Repeats, kernel and stride of each stage.
STAGES = [(1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1)]


class Encoder(torch.nn.Module):
    """A function of the tensors of a file, in inference mode."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images * (255 / 128) - 127 / 128
        x = F.relu6(self.norm(self.convolution(x, "_conv_stem", 2), "_bn0"))
        block = 0
        for repeats, _, stride in STAGES:
            for repeat in range(repeats):
                x = self.block(x, f"_blocks.{block}", stride if repeat == 0 else 1)
                block += 1
        x = F.relu6(self.norm(self.convolution(x, "_conv_head", 1), "_bn1"))
        return x.mean(dim=(2, 3))

    def block(self, inputs: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        x = inputs
        if f"{name}._expand_conv.weight" in self.tensors:
            x = F.relu6(self.norm(self.convolution(x, f"{name}._expand_conv", 1), f"{name}._bn0"))
        x = self.convolution(x, f"{name}._depthwise_conv", stride, groups=x.shape[1])
        x = F.relu6(self.norm(x, f"{name}._bn1"))
        x = self.norm(self.convolution(x, f"{name}._project_conv", 1), f"{name}._bn2")
        return x + inputs if x.shape == inputs.shape else x

    def convolution(self, x: torch.Tensor, name: str, stride: int, groups: int = 1) -> torch.Tensor:
        """A convolution with TensorFlow's padding, which is larger at the bottom and the right."""
        kernel = self.tensors[f"{name}.weight"]
        pads = []
        for length, size in zip(x.shape[:1:-1], kernel.shape[:1:-1], strict=True):
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads += [total // 2, total - total // 2]
        if len({*pads}) == 1:
            return F.conv2d(x, kernel, stride=stride, padding=pads[0], groups=groups)
        return F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=groups)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (self.tensors[f"{name}.{part}"] for part in parts)
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)


def main() -> None:
    weights, images, features, batch_size, rounds = sys.argv[1:]
    x = torch.from_numpy(np.load(images)).permute(0, 3, 1, 2)
    tensors = torch.load(weights, weights_only=True, map_location="cpu")
    if x.dtype == torch.float64:
        tensors = {name: tensor.double() for name, tensor in tensors.items()}
    x = x.contiguous(memory_format=torch.channels_last)
    encoder = Encoder(tensors).eval()
    seconds = []
    with torch.inference_mode():
        # The first round is to warm up, and is not timed.
        for _ in range(int(rounds) + 1):
            began = time.perf_counter()
            parts = [encoder(part) for part in x.split(int(batch_size))]
            seconds.append(time.perf_counter() - began)
    np.save(features, torch.cat(parts).numpy())
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps({"seconds": seconds[1:], **versions}))


if __name__ == "__main__":
    main()
