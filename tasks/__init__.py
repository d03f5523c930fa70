"""The steps of the flows: each module is one noun."""
