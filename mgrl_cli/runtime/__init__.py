"""Processes: workers that run agents in lock-step, their exchange and their coordinator."""
