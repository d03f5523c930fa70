"""The ways from one schema to the next, one folder per part; run by :mod:`tasks.database`."""
