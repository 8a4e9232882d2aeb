"""The comparison of `lake` with other engines; README.md says what it measures and how far to trust it."""
