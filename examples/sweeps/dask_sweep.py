"""Five-fold cross-validation of a penalty, spread over the workers of a Dask cluster.

Run it with `python examples/sweeps/dask_sweep.py` (`pip install dask distributed`); `cross_validation.py` has the work.
`Client("scheduler:8786")` instead uses a cluster of machines, to which `client.upload_file` sends that file.
"""

from cross_validation import data, held_out, recorded, show, tasks
from dask.distributed import Client, LocalCluster


def main():
    X, y = data()
    program = recorded(X, y)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        program, X, y = client.scatter([program, X, y], broadcast=True)      # to each worker once, not with each task
        show(client.gather([client.submit(held_out, program, X, y, *task) for task in tasks()]))


if __name__ == "__main__":
    main()
