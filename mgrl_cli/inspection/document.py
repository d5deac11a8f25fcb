"""A report as a JSON document: records become objects, figures that are not known become null."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any


def as_json(value: Any) -> Any:  # noqa: ANN401 - JSON is whatever it is
    """Return `value` made of dicts, lists, text, numbers and None only, valid in strict JSON.

    Args:
        value: a report, or any part of one.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
