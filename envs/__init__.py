"""Environments with plain NumPy in and out; importing it registers the `mgrl/...` tasks.

It must know neither `mgrl_cli` nor torch, so that the tasks can be used by any other project.
"""

from envs.registry import register_tasks

register_tasks()
