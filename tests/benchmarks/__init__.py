"""Benchmarks: ratios against the thing that is wrapped, measured in one run. Scripts, not tests."""
