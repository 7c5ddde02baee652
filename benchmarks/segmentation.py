"""Segmentation: training against bare torch, and whole pictures against one window for every pixel.

    unet            a whole training on generated cells, 100 steps of 6 crops: the command in this process, and a loop
                    of torch with the same network, crops, loss, optimiser, rates and layout of weights, and no more
    fcn             the classes of one picture of 64x64 by windows, all pixels at once against one window a pixel

`python benchmarks/segmentation.py [--only TEXT]`.
"""

from functools import partial

from protocol import compare, cpu_seconds, training_seconds

STEPS = 100
SIDE = 64


def theirs() -> float:
    from mpcli import heap

    heap.keep_freed_blocks()

    import torch

    from mpcli.kit.datasets import shuffled
    from mpcli_nets import cnn, fcn, unet
    from mpcli_nets.fcn.examples import crops, loss_of

    def train() -> None:
        given = fcn.masked("cells")
        torch.manual_seed(0)
        model = cnn.channels_last(unet.Segmenter(unet.Config(), given.channels, len(given.classes)))
        adam = torch.optim.Adam(model.parameters(), 0.005, fused=True)
        pace = cnn.rising_and_falling(adam, STEPS)
        index = shuffled(len(given.train), 6, 0)
        for step in range(STEPS):
            x, t = crops(given.train, index(step), 128)
            loss = loss_of(model(x.contiguous(memory_format=torch.channels_last)), t)
            adam.zero_grad()
            loss.backward()
            adam.step()
            pace.step()
        model.eval()
        fcn.held_out(model, given)

    return cpu_seconds(train, units=STEPS, warmup=1)


def scores(whole: bool) -> float:
    import torch

    from mpcli_nets import cnn
    from mpcli_nets.fcn import FCN, Config

    torch.manual_seed(0)
    model = cnn.channels_last(FCN(Config(scheme="sliding"), 1, 2)).eval()
    x = torch.rand(1, 1, SIDE, SIDE)
    rows = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).unflatten(0, (SIDE, SIDE))

    @torch.no_grad()
    def work() -> None:
        if whole:
            model(x)
        else:
            for row in rows:
                model(x, row[None])

    return cpu_seconds(work, units=1, warmup=1)


def main() -> None:
    """Ask every question."""
    compare("training `unet`, cells", partial(training_seconds, "unet", STEPS), theirs, rate="steps/s")
    compare(
        "a picture of 64x64 at once against windows", partial(scores, True), partial(scores, False), rate="pictures/s"
    )


if __name__ == "__main__":
    main()
