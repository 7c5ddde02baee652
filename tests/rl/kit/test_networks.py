"""A perceptron answered by numpy says what torch says, always with its latest parameters; and what a table lacks."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from mpcli.kit.layers import mlp
from mpcli_rl.kit import mdp, tabular
from mpcli_rl.kit.networks import by_numpy, network


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


def test_a_network_guesses_the_values_of_states_that_it_never_saw():
    """A table knows the states that were visited; a network carries what it learned of them to those beside."""
    side = 10
    rows = ["S" + "." * (side - 1)] + ["." * side] * (side - 2) + ["." * (side - 1) + "G"]
    model = mdp.transition_table(tabular.world(f"mpcli/Gridworld-v0(map={json.dumps(rows)})"))
    v = torch.from_numpy(mdp.solve(model, 0.9)).float()[: side * side]
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float() / side - 0.5
    seen = torch.rand(side * side, generator=torch.Generator().manual_seed(0)) < 0.5
    table = torch.zeros_like(v)
    table[seen] = v[seen]
    net = network(2, (32, 32), 1, gain=1.0)
    adam = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(500):
        loss = (net(places[seen]).squeeze(1) - v[seen]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    guessed = net(places).squeeze(1).detach()
    off = [float((found - v)[~seen].square().mean().sqrt()) for found in (guessed, table)]
    assert off[0] < 0.2 * off[1]
