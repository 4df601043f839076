"""Five-fold cross-validation of a penalty, spread over the cores of a machine by joblib.

Run it with `python examples/sweeps/joblib_sweep.py` (`pip install joblib`); `cross_validation.py` has the work.
"""

import joblib
from cross_validation import data, held_out, recorded, show, tasks


def main():
    X, y = data()
    program = recorded(X, y)
    show(joblib.Parallel(n_jobs=2)(joblib.delayed(held_out)(program, X, y, *task) for task in tasks()))


if __name__ == "__main__":
    main()
