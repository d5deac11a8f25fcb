"""Processes: workers that run agents in lock-step, the exchange they meet in, and their coordinator."""
