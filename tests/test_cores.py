import os

import pytest

from mgrl_cli.cores import usable_cores, visible_cores, within_quota


@pytest.mark.parametrize(
    ("cores", "quota", "usable"), [(8, None, 8), (8, 2.0, 2), (8, 2.9, 2), (2, 4.0, 2), (8, 0.5, 1)]
)
def test_a_quota_leaves_whole_cores_and_at_least_one(
    cores: int, quota: float | None, usable: int
) -> None:
    assert within_quota(cores, quota) == usable


def test_of_this_machine_some_cores_are_visible_and_no_more_of_them_usable() -> None:
    assert 1 <= usable_cores() <= visible_cores() <= (os.cpu_count() or 1)
