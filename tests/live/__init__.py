"""Against a real Prefect server with a real worker. A package, so that both end with the last of these tests."""
