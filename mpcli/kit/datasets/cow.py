"""`cow`: 50 views of a painted cow, 64 x 64 pixels with opacity, that come with mpcli: 40 train, 5 validation, 5 test.

`tools/make_scene.py` made them; their origin and licence stand beside them.

Origin: Keenan Crane's model Spot, painted

Licence: CC0, public domain
"""

from dataclasses import replace
from importlib.resources import as_file, files

from mpcli.kit.datasets.blender import blender
from mpcli.kit.datasets.files import no_argument
from mpcli.kit.datasets.types import Scene


def cow(argument: str) -> Scene:
    """The scene, z up, the cow inside the unit sphere and looking to -y, cameras 3 away from its middle."""
    no_argument("cow", argument)
    with as_file(files("mpcli_data").joinpath("cow")) as folder:
        return replace(blender(str(folder)), bounds=(2.0, 4.0))  # those of the unit sphere, from 3 away
