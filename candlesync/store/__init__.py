"""Where series are kept: the contract and its implementations."""
