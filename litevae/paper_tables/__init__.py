"""The tables and figures of the paper as data, with the commands that make the like of them: contents.py lists all."""
