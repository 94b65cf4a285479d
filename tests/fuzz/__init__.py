"""The long run of the property tests of the stages, and what it has found: `make fuzz MINUTES=10`."""
