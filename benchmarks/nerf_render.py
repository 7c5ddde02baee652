"""Rendering a radiance field of the paper's size, 8 x 256 with 64 + 128 samples: ours against nerf-pytorch's network.

    python benchmarks/nerf_render.py [--run DIR]

The peer is the network of github.com/yenchenlin/nerf-pytorch (run_nerf_helpers.py, run_nerf.py) in bare torch: places
encoded in pieces, concatenated with the directions, 65536 samples a call, every sample of both networks coloured. It
gets the same weights, and takes its places along a ray from the page, so that both sides compute the same pixels; the
largest difference is printed, and one above a thousandth ends the benchmark. Rays are those of every fourth pixel of a
test view of the embedded scene.

How much there is to skip depends on the field, which should be one that has been learned. DIR is a run of `mpcli train
nerf` with its default size, 4 x 64; without it one is trained for some minutes. It is carried over into a network of
8 x 256 that computes the same function: the layers between are the identity, and the units beside are zero. Matrices
of zeros take the time of any others.

The peer's large tensors cost page faults, which `mpcli` avoids for all pages by keeping freed blocks in the process.
The first row is what users have: the peer with glibc as it is. In the second row both sides keep freed blocks, and what
is left is the gain of the page itself.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from protocol import compare, cpu_seconds


def field(run: Path):
    """The trained model with the samples of the paper, and rays [R, 3] of a picture."""
    import dataclasses

    import torch

    from mpcli.kit import datasets
    from mpcli.run import Trained
    from mpcli_radiance.nerf import Config, NeRF

    torch.set_num_threads(1)
    trained = Trained(run, "cpu")
    small = trained.load(NeRF, Config)
    assert (small.cfg.depth, small.cfg.encoding) == (4, "positional")
    cfg = dataclasses.replace(small.cfg, width=256, depth=8, coarse=64, fine=128)
    model = NeRF(cfg, **trained.extras).eval()
    widen(small.coarse, model.coarse)
    widen(small.fine, model.fine)
    scene = datasets.load("cow", datasets.Scene)
    origins, directions = scene.cameras[scene.split.test[:1]].rays()
    return model, origins[0, ::2, ::2].reshape(-1, 3), directions[0, ::2, ::2].reshape(-1, 3)


def widen(small, large) -> None:
    """Gives a field of 8 layers the function of one with 4: ReLU leaves what is positive as it is."""
    import torch

    def put(into, of) -> None:
        with torch.no_grad():
            into.weight[: of.weight.shape[0], : of.weight.shape[1]] = of.weight
            if of.bias is not None:
                into.bias[: len(of.bias)] = of.bias

    for parameter in large.parameters():
        torch.nn.init.zeros_(parameter)
    assert (small.skip, large.skip) == (2, 5)
    for i, layer in zip((0, 1, 5, 6), small.layers, strict=True):
        put(large.layers[i], layer)
    for i in (2, 3, 4, 7):
        torch.nn.init.eye_(large.layers[i].weight)
    for name in ("again", "to_density", "to_feature", "from_feature", "from_direction", "to_colour"):
        put(getattr(large, name), getattr(small, name))


def ours(run: Path) -> float:
    from mpcli.heap import keep_freed_blocks

    assert keep_freed_blocks()
    model, origins, directions = field(run)
    seconds = cpu_seconds(lambda: model.render(origins, directions), units=len(origins), warmup=1)
    colour, _, opacity = model.render(origins, directions)
    difference = float((colour - bare_torch(model)(origins, directions)).abs().max())
    solid = float((opacity > 0.99).float().mean())
    print(f"largest difference of a pixel {difference:.1e}; {solid:.0%} of the rays end in the object", file=sys.stderr)
    assert difference < 1e-3
    return seconds


def peer(run: Path, kept: bool) -> float:
    if kept:
        from mpcli.heap import keep_freed_blocks

        assert keep_freed_blocks()
    model, origins, directions = field(run)
    render = bare_torch(model)
    return cpu_seconds(lambda: render(origins, directions), units=len(origins), warmup=1)


def bare_torch(model):
    """The peer as a function of rays, with the weights of `model`."""
    import math

    import torch
    from torch import nn
    from torch.nn import functional as F

    def embed(p, octaves):
        return torch.cat([f(p * math.pi * 2.0**k) for k in range(octaves) for f in (torch.sin, torch.cos)], -1)

    def columns(octaves):
        """Where ours keeps what `embed` gives: all sines, then all cosines, each coordinate by coordinate."""
        sines, cosines = torch.arange(6 * octaves).view(2, 3, octaves)
        return torch.stack([sines.T, cosines.T], 1).flatten()

    class Network(nn.Module):
        def __init__(self, ours):
            super().__init__()
            places, directions = columns(10), columns(4)
            linears = [self.linear(layer.weight, layer.bias) for layer in ours.layers]
            linears[0] = self.linear(ours.layers[0].weight[:, places], ours.layers[0].bias)
            both = torch.cat([ours.again.weight[:, places], ours.layers[5].weight], -1)
            linears[5] = self.linear(both, ours.layers[5].bias)
            self.pts_linears = nn.ModuleList(linears)
            both = torch.cat([ours.from_feature.weight, ours.from_direction.weight[:, directions]], -1)
            self.views_linear = self.linear(both, ours.from_feature.bias)
            self.feature_linear, self.alpha_linear, self.rgb_linear = ours.to_feature, ours.to_density, ours.to_colour

        @staticmethod
        def linear(weight, bias):
            made = nn.Linear(weight.shape[1], weight.shape[0])
            made.weight.data, made.bias.data = weight.detach().clone(), bias.detach().clone()
            return made

        def forward(self, x):
            input_pts, input_views = torch.split(x, [60, 24], dim=-1)
            h = input_pts
            for i, layer in enumerate(self.pts_linears):
                h = F.relu(layer(h))
                if i == 4:
                    h = torch.cat([input_pts, h], -1)
            alpha = self.alpha_linear(h)
            h = torch.cat([self.feature_linear(h), input_views], -1)
            h = F.relu(self.views_linear(h))
            return torch.cat([self.rgb_linear(h), alpha], -1)

    def run_network(network, places, directions, netchunk=1024 * 64):
        flat = places.reshape(-1, 3)
        embedded = embed(flat, 10)
        input_dirs = directions[:, None].expand(places.shape).reshape(-1, 3)
        embedded = torch.cat([embedded, embed(input_dirs, 4)], -1)
        raw = torch.cat([network(embedded[i : i + netchunk]) for i in range(0, len(embedded), netchunk)], 0)
        return raw.reshape(*places.shape[:-1], 4)

    def raw2outputs(raw, t):
        dists = torch.cat([t[..., 1:] - t[..., :-1], model.far - t[..., -1:]], -1)
        rgb = torch.sigmoid(raw[..., :3])
        alpha = 1.0 - torch.exp(-F.softplus(10 * raw[..., 3]) * dists)  # the page's density, for its ReLU
        passing = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1.0 - alpha + 1e-10], -1), -1)[:, :-1]
        w = alpha * passing
        return torch.sum(w[..., None] * rgb, -2) + (1.0 - w.sum(-1)[..., None]) * model.background, w

    coarse, fine = Network(model.coarse), Network(model.fine)

    @torch.no_grad()
    def render(origins, directions):
        t = model.first_places(len(origins))
        _, w = raw2outputs(run_network(coarse, model.scaled(origins, directions, t), directions), t)
        t = model.all_places(t, w)
        return raw2outputs(run_network(fine, model.scaled(origins, directions, t), directions), t)[0]

    return render


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--run", type=Path, default=Path(tempfile.gettempdir()) / "mpcli-benchmark-nerf")
    run = parser.parse_known_args()[0].run
    if not (run / "model.safetensors").exists():
        subprocess.run([sys.executable, "-m", "mpcli", "train", "nerf", "--out", str(run), "--quiet"], check=True)
    for kept in (False, True):
        question = f"nerf rendering, 8 x 256, 64 + 128 samples, {'both keep' if kept else 'ours keeps'} freed blocks"
        compare(question, partial(ours, run), partial(peer, run, kept), rate="rays/s", repeats=3)
