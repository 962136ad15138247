"""Privacy: what was released, what it costs, and the ledger that keeps it."""
