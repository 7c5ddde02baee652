"""Training of convolutional pages against the same networks in bare torch.

    cnn, resnet     a whole training on the digits, 1000 steps of 64: the command in this process, and a loop of torch
                    with the same network, batches, optimiser, rates and layout of weights, and no log, no curves
    cnn, written    the same by hand-written gradients, for what they cost

`python benchmarks/convolutions.py [--only TEXT]`.
"""

from functools import partial

from protocol import compare, cpu_seconds, training_seconds

STEPS = 1000


def theirs(page: str) -> float:
    from mpcli import heap

    heap.keep_freed_blocks()

    import torch
    import torch.nn.functional as F

    from mpcli.kit.datasets import shuffled
    from mpcli_nets import cnn, resnet

    def train() -> None:
        given = cnn.pictured("digits")
        torch.manual_seed(0)
        made = {"cnn": (cnn.CNN, cnn.Config), "resnet": (resnet.ResNet, resnet.Config)}[page]
        model = cnn.channels_last(made[0](made[1](), given.shape, given.outputs))
        adam = torch.optim.Adam(model.parameters(), 0.005, fused=True)
        pace = cnn.rising_and_falling(adam, STEPS)
        index = shuffled(len(given.train), 64, 0)
        for step in range(STEPS):
            i = index(step)
            x = given.train[i].contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), given.targets.train[i])
            adam.zero_grad()
            loss.backward()
            adam.step()
            pace.step()
        model.eval()
        cnn.held_out(model, given)

    return cpu_seconds(train, units=STEPS, warmup=1)


def main() -> None:
    """Ask every question."""
    for page in ("cnn", "resnet"):
        compare(
            f"training `{page}`, digits",
            partial(training_seconds, page, STEPS, "--vary", "0"),
            partial(theirs, page),
            rate="steps/s",
        )
    written = partial(training_seconds, "cnn", STEPS, "--vary", "0", "--backward", "written")
    compare("training `cnn` by hand-written gradients", written, partial(theirs, "cnn"), rate="steps/s")


if __name__ == "__main__":
    main()
