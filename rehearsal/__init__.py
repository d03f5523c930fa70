"""The real flows on a clock of their own: the demo, and the replay of history through a policy."""
