"""Writes tests/models/flor/golden with torch and transformers: `python tests/models/flor/make_golden.py`.

`resnet10.npz`: a small ResNet10 of torch layers in which every norm is `w · InstanceNorm2d + (1 − w) · BatchNorm2d`;
its parameters, images, features in evaluation and in training, running statistics after training on one batch, and
the gradient there. `vit/`: a tiny ViTModel in the layout of facebook/dino-vits16, and its tokens at two image sizes.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import ViTConfig, ViTModel

GOLDEN = Path(__file__).parent / "golden"
WIDTHS, WEIGHT, SIDE = (3, 4, 5, 6), 0.25, 40
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"patch_size": 4, "image_size": 12}
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Mixed(nn.Module):
    """The mixed norm with a fixed weight; 0 and 1 are the plain norms."""

    def __init__(self, width, weight):
        super().__init__()
        self.own, self.batch = nn.InstanceNorm2d(width, affine=True), nn.BatchNorm2d(width)
        self.weight = weight

    def forward(self, x):
        return self.weight * self.own(x) + (1 - self.weight) * self.batch(x)


class Block(nn.Module):
    def __init__(self, inputs, outputs, weight, halves):
        super().__init__()
        stride = 2 if halves else 1
        self.kernel1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = Mixed(outputs, weight)
        self.kernel2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = Mixed(outputs, weight)
        self.kernel3 = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if halves else None
        self.norm3 = Mixed(outputs, weight) if halves else None

    def forward(self, x):
        h = self.norm2(self.kernel2(torch.relu(self.norm1(self.kernel1(x)))))
        return torch.relu(h + (x if self.kernel3 is None else self.norm3(self.kernel3(x))))


class ResNet10(nn.Module):
    def __init__(self, widths, weight):
        super().__init__()
        self.kernel, self.norm = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), Mixed(widths[0], weight)
        inputs = widths[0]
        for i, outputs in enumerate(widths):
            self.add_module(f"block{i + 1}", Block(inputs, outputs, weight, i > 0))
            inputs = outputs

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.kernel(x))), 3, 2, 1)
        for i in range(1, 5):
            x = getattr(self, f"block{i}")(x)
        return x.mean((2, 3))


def drawn_resnet(widths, weight, seed=0):
    """A ResNet10 whose affines and running statistics are drawn too."""
    model, generator = ResNet10(widths, weight), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d):
                module.weight.copy_(1 + 0.3 * torch.randn(module.weight.shape, generator=generator))
                module.bias.copy_(0.3 * torch.randn(module.bias.shape, generator=generator))
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(0.3 * torch.randn(module.bias.shape, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.bias.shape, generator=generator))
            if isinstance(module, nn.Conv2d):
                deviation = (2 / module.weight[0].numel()) ** 0.5
                module.weight.copy_(deviation * torch.randn(module.weight.shape, generator=generator))
    return model


def named(values):
    """Torch names and values → our paths and values, of parameters, gradients and running statistics."""
    found = {}
    for name, value in values:
        value = value.detach().numpy().copy()
        path = name.replace(".", "/")
        if name.split(".")[-2].startswith("kernel"):
            found["network/" + path.removesuffix("/weight")] = value.transpose(2, 3, 1, 0)
        elif path.endswith(("running_mean", "running_var")):
            path = path.replace("/batch/running_mean", "/mean").replace("/batch/running_var", "/variance")
            found["statistics/" + path] = value
        elif not path.endswith("num_batches_tracked"):
            found["network/" + path.replace("/weight", "/scale")] = value
    return found


def resnet_case(widths, weight, images, seed=0):
    """Everything that `resnet10.npz` holds, from 8-bit images."""
    model = drawn_resnet(widths, weight, seed)
    held = {f"params/{k}": v for k, v in named(model.state_dict().items()).items()}
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    with torch.no_grad():
        held["test"] = model.eval()(x).numpy()
    found = model.train()(x)
    (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
    held["train"] = found.detach().numpy()
    held |= {f"after/{k}": v for k, v in named(model.state_dict().items()).items() if k.startswith("statistics")}
    held |= {f"gradient/{k}": v for k, v in named((n, p.grad) for n, p in model.named_parameters()).items()}
    return held | {"images": images}


def drawn_vit(seed, **sizes):
    """A ViTModel in float32, every parameter drawn at a scale at which dropping one moves the output."""
    model = ViTModel(ViTConfig(layer_norm_eps=1e-12, **sizes), add_pooling_layer=False).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.5
            scale = (parameter[0].numel() ** -0.5) if parameter.ndim == 4 else scale
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return model


def vit_feature(model, images):
    """The class token of 8-bit images, normalised as DINO's processor does."""
    pixels = torch.from_numpy(((images / 255 - MEAN) / DEVIATION).astype(np.float32).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        return model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0].numpy()


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    np.savez_compressed(GOLDEN / "resnet10.npz", **resnet_case(WIDTHS, WEIGHT, images))
    vit = drawn_vit(0, **SIZES)
    vit.save_pretrained(GOLDEN / "vit")
    images = {side: rng.integers(0, 256, (2, side, side, 3), np.uint8) for side in (12, 20)}
    held = {f"images_{side}": x for side, x in images.items()} | {
        f"features_{side}": vit_feature(vit, x) for side, x in images.items()
    }
    np.savez_compressed(GOLDEN / "vit" / "expected.npz", **held)


if __name__ == "__main__":
    main()
