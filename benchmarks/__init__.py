"""What is promised, measured beside a peer or a limit in the same run. ``make bench`` and ``make prove`` run it.

A benchmark is a module with ``main()``, run as ``python -m benchmarks.<module>``. The first sentence of its docstring
says what it measures. It prints lines for a reader and one JSON object as its last line on stdout, and exits with 0
only when every limit is kept:

    {"name": "serving", "value": 0.81, "limit": 0.7, "ok": true, ...}

``name``
    Of the module.
``value``, ``limit``
    What is held against what; the limit is one from above, or from below with ``"least": true``.
``ok``
    Whether all that is wanted was found. Without it nothing was.
``unit``, ``case``
    For a reader: of the value, and what it was measured on.
``lines``
    Where more than one limit counts: a list of ``{"what", "value", "limit", "least", "ok", "told"}``, each a row of
    docs/benchmarks.md. :func:`benchmarks.proof.conclude` prints them from :class:`benchmarks.proof.Line` with
    ``rows=True``, and gives the exit code.

Whatever is compared is measured in turn, round after round, and the median of the ratios of the rounds is the value: a
machine that others use is slow for both. A new benchmark is added to ``BENCHMARKS`` of :mod:`benchmarks.bench`. What
it checks beside time (equal results, counts, memory) has a fast form in the tests; time is never tested there.
"""
