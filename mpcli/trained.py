"""A finished training run, as the verbs that read a model see it."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mpcli import files, store
from mpcli.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mpcli.values import Option

    M = TypeVar("M", bound=nn.Module)


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
        return store.heading(record["page"], self.options, record.get("result") or {})

    def load(self, model: "Callable[..., M]", config: Callable[..., Any]) -> "M":
        """The trained model, on the run's device and in eval mode: `model(config(**saved), **extras)`.

        Raises:
            InputError: the weights are missing, damaged, or of another version of the page.
        """
        from safetensors import SafetensorError
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
            _fits(lambda: model(config(**self._about["config"]), **self.extras), weights)
            built = model(config(**self._about["config"]), **self.extras)
            built.load_state_dict(weights)
        except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: does not fit this page's version ({first}); train the page again") from error
        return built.to(self._device).eval()


def _fits(build: "Callable[[], nn.Module]", weights: "dict[str, torch.Tensor]") -> None:
    """Builds a model without its memory, so that sizes in model.json that the weights do not have cost nothing.

    Raises:
        ValueError: it has other parameters than the weights.
    """
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    left = len(weights)

    def count(module: object, name: str, parameter: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:  # before a model of a million layers is built to the end
            raise ValueError(f"model.json describes more than its {len(weights)} tensors")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            skeleton = build()
    finally:
        hook.remove()
    for name, parameter in skeleton.named_parameters():
        if name not in weights or weights[name].shape != parameter.shape:
            found = tuple(weights[name].shape) if name in weights else "missing"
            raise ValueError(f"{name} is {found}, and by model.json {tuple(parameter.shape)}")
