"""program.py and full_run.py are to be run by the tests, not to be collected."""

collect_ignore = ["program.py", "full_run.py"]
