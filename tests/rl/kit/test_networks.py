"""A perceptron answered by numpy says what torch says, always with its latest parameters."""

import numpy as np
import pytest
import torch
from torch import nn

from mpcli.kit.layers import mlp
from mpcli_rl.kit.networks import by_numpy


def drawn(inputs: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 9), activation(), nn.Linear(9, 7), activation(), nn.Linear(7, 3))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("rows", [1, 5])
def test_numpy_and_torch_agree(activation, rows):
    torch.manual_seed(0)
    net, x = drawn(4, activation), np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
    kept = x.copy()
    for _ in range(2):
        out = by_numpy(net, x)
        assert out.dtype == np.float32 and (x == kept).all()
        np.testing.assert_allclose(out, net(torch.from_numpy(x)).detach().numpy(), atol=1e-6)
        net.load_state_dict(drawn(4, activation).state_dict())  # the second time round it must follow


def test_what_it_cannot_do_is_said():
    with pytest.raises(TypeError, match="Dropout"):
        by_numpy(mlp(2, (3,), 1, dropout=0.5), np.zeros((1, 2), np.float32))
