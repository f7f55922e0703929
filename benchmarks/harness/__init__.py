"""What benchmarks are made of: the clock, the counters, the reports."""
