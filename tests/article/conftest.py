"""program.py, typed.py and full_run.py are to be run by the tests, not to be collected."""

collect_ignore = ["program.py", "typed.py", "full_run.py"]
