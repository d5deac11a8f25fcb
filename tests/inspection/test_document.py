import json
import math
from dataclasses import dataclass

from mgrl_cli.inspection.document import as_json


@dataclass(frozen=True, slots=True)
class Inner:
    figure: float
    pair: tuple[int, float]


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    table: dict[str, object]


def test_records_become_objects_and_unknown_figures_null() -> None:
    report = Outer(Inner(math.nan, (1, math.inf)), {"a": [True, None, "x"], "b": {"c": -math.inf}})
    document = as_json(report)
    assert document == {
        "inner": {"figure": None, "pair": [1, None]},
        "table": {"a": [True, None, "x"], "b": {"c": None}},
    }
    assert json.loads(json.dumps(document, allow_nan=False)) == document
