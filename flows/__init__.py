"""What Prefect runs: one file, one flow, one sentence of what happens."""
