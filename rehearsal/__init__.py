"""The real flows on a clock of their own: the demo and the replay of history; and the backtest, which is in memory."""
