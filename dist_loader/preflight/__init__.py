"""Looks before a job starts: what each host has, whether it fits together, and what to do where it does not.

`host` runs on every host and tells facts; `compare` turns the facts of all hosts into cells, `strategies` those of one
machine into what can work there; `trial` adds one number over all ranks, started as the job would be; `table` shows it.
"""
