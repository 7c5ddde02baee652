"""Schedules of a resumed run that trains for another number of steps: the end of a schedule moves to the new end."""

from collections.abc import Mapping
from typing import Any

_ENDS = ("T_max", "total_iters")  # attributes of torch's schedulers that say after how many steps they end


def ends(state: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Where the schedules among the states end, by name and attribute."""
    return {
        (name, end): getattr(thing, end) for name, thing in state.items() for end in _ENDS if _is_schedule(thing, end)
    }


def _is_schedule(thing: Any, end: str) -> bool:
    return hasattr(thing, end) and hasattr(thing, "optimizer") and hasattr(thing, "_get_closed_form_lr")


def move(state: Mapping[str, Any], wanted: Mapping[tuple[str, str], int]) -> list[str]:
    """Give restored schedules the ends that the page gave them; a line for the user for each that changed."""
    said = []
    for (name, end), steps in wanted.items():
        schedule = state[name]
        before = getattr(schedule, end)
        if before == steps:
            continue
        setattr(schedule, end, steps)
        rates = schedule._get_closed_form_lr()  # the next rate follows from this one
        for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        schedule._last_lr = list(rates)
        said.append(f"{name} ends at step {steps} instead of {before}, so it goes on from a rate of {rates[0]:.3g}")
    return said
