"""What the benchmarks compare with: the same work as others do it."""
