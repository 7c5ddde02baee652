"""A finished training run, as the verbs that read a model see it."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mpcli import files, store
from mpcli.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mpcli.values import Option

    M = TypeVar("M", bound=nn.Module)

SPARE = 1000  # parameters beyond those of the weights that a model may make
ROOM = 256 * 2**20  # bytes beyond its weights that a model may ask for while it is built


class Options(dict[str, Any]):
    """What config.json of a run says; the name of one that is asked for and missing is told."""

    path = Path()

    def __missing__(self, name: str) -> Any:
        raise InputError(f"{self.path}: is damaged; it should hold {name}; train the page again")

    def check(self, options: "Iterable[Option]") -> None:
        """Holds the values against the options of the verb that trained.

        Raises:
            InputError: one is of another kind or out of bounds.
        """
        for option in options:
            if option.name in self:
                option.check(self[option.name], f"{self.path}: {option.name}")


class Trained:
    """A finished training run that another verb reads.

    Attributes:
        dir: its directory.
        options: every option of that run, by name.
        extras: what the page gave to `Run.save` beside model and configuration.
        heading: the line that a picture carries: page, data or environment, the main metric of that run.
    """

    def __init__(self, directory: Path, device: "torch.device | str" = "cpu") -> None:
        self.dir = directory
        self.options = Options(files.tuples(files.read_json(directory / "config.json")))
        self.options.path = directory / "config.json"
        path = directory / "model.json"
        if not path.exists():
            if seeds := store.seed_runs(directory):
                raise InputError(f"{directory}: holds a run of each seed; name one of them, such as {seeds[0]}")
            raise InputError(
                f"{directory}: holds no trained model (its training did not finish); continue it with --resume"
            )
        self._about = files.tuples(files.read_json(path))
        if not all(isinstance(self._about.get(name), dict) for name in ("config", "extras")):
            raise InputError(f"{path}: is damaged; it should hold config and extras; train the page again")
        self._device = device

    @property
    def extras(self) -> dict[str, Any]:
        return self._about["extras"]

    @property
    def heading(self) -> str:
        try:
            record = store.read_record(self.dir)
        except InputError:  # a model alone serves as well
            return ""
        return store.heading(record["page"], self.options, store.numbers(record))

    def load(self, model: "Callable[..., M]", config: Callable[..., Any]) -> "M":
        """The trained model, on the run's device and in eval mode: `model(config(**saved), **extras)`.

        Raises:
            InputError: the weights are missing, damaged, or of another version of the page.
        """
        from safetensors.torch import load

        path = self.dir / "model.safetensors"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); train the page again") from error
        if hashlib.sha256(data).hexdigest() != self._about.get("sha256"):
            raise InputError(f"{path}: is damaged (its checksum is not the one in model.json); train the page again")
        try:
            weights = load(data)
            with _at_most(4 * len(data) + ROOM, len(weights)):
                built = model(config(**self._about["config"]), **self.extras)
            built.load_state_dict(weights)
        except InputError:
            raise
        except (Exception, RecursionError) as error:  # whatever values of another kind or size make of a constructor
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{path}: does not fit model.json or this page's version ({first}); train the page again"
            ) from error
        return built.to(self._device).eval()


@contextlib.contextmanager
def _at_most(size: int, parameters: int) -> Iterator[None]:
    """While a model is built, refuse many more parameters, or tensors of more than `size` bytes before they are made.

    The sizes stand in model.json, which anybody may have written; the weights that must fit lie beside it.
    """
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook
    from torch.overrides import TorchFunctionMode

    makers = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.randperm}
    makers |= {torch.eye, torch.arange, torch.linspace}
    left, unnamed = size, 4 * parameters + SPARE  # tied ones, and those that are replaced, are registered twice

    class Counted(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal left
            if func in makers:
                shape_only = {k: v for k, v in (kwargs or {}).items() if k not in ("generator", "out", "pin_memory")}
                with torch._C.DisableTorchFunctionSubclass():
                    left -= func(*args, **shape_only | {"device": "meta"}).nbytes
                if left < 0:
                    raise ValueError(f"its sizes ask for more than {size} bytes, more than the weights can fill")
            return func(*args, **(kwargs or {}))

    def named(module: object, name: str, parameter: object) -> None:
        nonlocal unnamed
        unnamed -= parameter is not None
        if unnamed < 0:  # a million small layers cost more than their tensors
            raise ValueError(f"it describes many more than the {parameters} tensors that the weights have")

    hook = register_module_parameter_registration_hook(named)
    try:
        with Counted():
            yield
    finally:
        hook.remove()
