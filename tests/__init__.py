"""A package by name, so that no installed one of the name `tests` (torch-fidelity has one) is taken for it."""
