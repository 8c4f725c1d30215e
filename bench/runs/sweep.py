"""Choose the methods of `bench sweep`: those that are named, each with its controls beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.errors import InputError
from bench.registry import METHODS, all_knobs


def methods_to_sweep(names: Sequence[str], knobs: Mapping[str, Sequence[object]], *, controls: bool) -> tuple[str, ...]:
    """Return the methods of a sweep, each with its controls behind it.

    Args:
        names: registry names on the command line.
        knobs: knob -> values that were given.
        controls: whether the methods' controls run too.

    Raises:
        InputError: no method, or no knob with several values.
    """
    if not names:
        raise InputError("a sweep needs a method; give --method, for example --method adapler")
    if not any(len(values) > 1 for values in knobs.values()):
        known = sorted({knob.name for name in names for knob in all_knobs(METHODS[name])})
        raise InputError(
            f"a sweep needs a knob with several values, as --phi 0.001,0.01; {', '.join(names)} has: "
            f"{', '.join(known) or 'none'}"
        )
    beside = [name for name, method in METHODS.items() if controls and method.control_of in names]
    return tuple(dict.fromkeys([*names, *beside]))
