"""Scripts that measure this suite's speed on the machine at hand."""
