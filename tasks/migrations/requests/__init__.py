"""Of the request log."""
