import subprocess
import sys

import pytest

pytest.importorskip("numba", reason="the kernels need numba")

_COUNT_COMPILED = """
from mgrl_cli.algorithm.fused import descent, glue, meta_glue, objective, trunk
from mgrl_cli.algorithm.objective_network import ObjectiveNetwork
from mgrl_cli.algorithm.trunk import Trunk

for load in objective.pass_loads(ObjectiveNetwork(compiled=True)):
    load()
Trunk(1, 8, 1, compiled=True).load_kernels()
Trunk(1, 5, 1, layer_norm=False, compiled=True).load_kernels()
trunks = [*trunk._passes(8, True), *trunk._passes(5, False)]
passes = [*objective.passes(), *trunks, glue.act, meta_glue.judge, descent.descend]
print(sum(sum(one.stats.cache_misses.values()) for one in passes))
"""


def _compiled_by_a_new_process() -> int:
    result = subprocess.run(
        [sys.executable, "-c", _COUNT_COMPILED], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


def test_what_one_process_has_compiled_every_other_one_only_loads() -> None:
    _compiled_by_a_new_process()
    assert _compiled_by_a_new_process() == 0
