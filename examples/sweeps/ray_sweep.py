"""Five-fold cross-validation of a penalty, spread over the workers of a Ray cluster.

Run it with `python examples/sweeps/ray_sweep.py` (`pip install ray`); `cross_validation.py` has the work.
`ray.init("auto", runtime_env={"working_dir": "examples/sweeps"})` instead uses a cluster of machines.
"""

import ray
from cross_validation import data, held_out, recorded, show, tasks


def main():
    X, y = data()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    shared = [ray.put(one) for one in (recorded(X, y), X, y)]                # to each machine once, not with each task
    score = ray.remote(held_out)
    losses = ray.get([score.remote(*shared, *task) for task in tasks()])
    ray.shutdown()
    show(losses)


if __name__ == "__main__":
    main()
