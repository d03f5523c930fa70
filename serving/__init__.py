"""The gateway: HTTP in front of what the ledger says is in Production."""
