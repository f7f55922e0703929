"""What the operators and the models cost: `pytest benchmarks --benchmark-only`, see README.md."""
