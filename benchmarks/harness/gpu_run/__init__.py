"""Everything on an NVIDIA GPU: `python -m benchmarks.harness.gpu_run`, in parts of at most ten minutes.

__main__.py         the command line, and one part after the other
parts.py            what each part runs, what it needs, and what of it a CPU can try
limited.py          a command with a time limit, ended with its children
summary.py          summary.json, the table, the archive
pytest_options.py   what the parts ask of pytest
encode_profile.py   where the time of LiteVAE-B's encoder goes, kernel by kernel
training.py         a run of so many minutes, and the table of all such runs
"""
