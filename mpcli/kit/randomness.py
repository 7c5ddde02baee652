"""Random numbers that are a function of where they are used, so that nothing needs to be replayed to get them again."""

import numpy as np
import torch


def generator(seed: int, *place: int) -> torch.Generator:
    """A generator for one place in a computation, such as a step: other places give independent numbers."""
    state = np.random.SeedSequence((seed % 2**64, *place)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)
