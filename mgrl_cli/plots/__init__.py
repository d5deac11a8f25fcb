"""Figures of finished and running runs, and the data behind them."""
