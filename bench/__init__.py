"""Measures hydrasms against bare baselines; `python -m bench --help` says how."""
