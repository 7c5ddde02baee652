"""What is drawn of a flow."""

import imageio.v3 as iio
import pytest
import torch
from matplotlib.figure import Figure

from mpcli.run import Run
from mpcli_flows.kit.flow import Target, write_density


class Kept(Run):
    def figure(self, name: str, figure: Figure):
        self.drawn = figure
        return super().figure(name, figure)


def gaussian(x: torch.Tensor) -> torch.Tensor:  # around (1, -1), deviation 1/2
    return -2 * ((x - torch.tensor([1.0, -1.0])) ** 2).sum(1) - torch.log(torch.tensor(torch.pi / 2))


def drawn(folder, target):
    run = Kept(folder)
    x = torch.tensor([1.0, -1.0]) + 0.5 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    write_density(run, "planar on u1", gaussian, x, target)
    assert iio.imread(run.dir / "density.png").std() > 5
    return run.drawn


def test_the_peak_lies_where_the_density_has_it_in_the_units_of_the_data(tmp_path):
    axes = drawn(tmp_path, None).axes[0]
    values = axes.images[0].get_array()
    x0, x1, y0, y1 = axes.images[0].get_extent()
    row, column = divmod(int(values.argmax()), values.shape[1])
    assert x0 + (column + 0.5) / 256 * (x1 - x0) == pytest.approx(1, abs=0.02)
    assert y0 + (row + 0.5) / 256 * (y1 - y0) == pytest.approx(-1, abs=0.02)
    assert values.mean() * (x1 - x0) * (y1 - y0) == pytest.approx(1, abs=0.05)


def test_a_target_density_stands_beside_with_the_gap_to_it(tmp_path):
    figure = drawn(tmp_path, Target(gaussian, 3.0, 0.125))
    assert [axes.get_title() for axes in figure.axes] == ["target density", "density of the model", "", "samples"]
    assert all(axes.get_xlim() == (-3, 3) for axes in figure.axes if axes.get_title())
    assert figure.texts[0].get_text() == "planar on u1\nKL(model || target): 0.125 nats"


def test_data_stand_beside_within_the_frame(tmp_path):
    data = torch.tensor([[9.0, 0.0], [9.1, 0.2]]).repeat(500, 1)
    figure = drawn(tmp_path, data)
    assert figure.axes[-1].get_title() == "held-out data"
    assert figure.axes[-1].get_xlim()[1] > 9.1
