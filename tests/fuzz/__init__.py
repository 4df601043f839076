"""The differential fuzzer of programs: `fs.compile(f)` says what `f` says, for whatever `f` does.

`generate` writes random functions as Python source, `judge` runs one of them compiled and plain and compares, `workers`
keeps judges in processes of their own, `minimise` makes a failing program short, `__main__` is `make fuzz`.  What it
found lies in `corpus/`, a file for each program; `test_fuzz.py` judges them all, and some new ones.
"""
