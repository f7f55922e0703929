"""What benchmarks are made of: the clock, the checks, the schedule, the reports."""
