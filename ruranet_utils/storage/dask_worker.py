"""A dask worker that gives the same bytes: ``python -m ruranet_utils.worker tcp://scheduler:8786 --nthreads 1``.

It is ``dask worker``, but this package is imported first and fixes the processor's instructions in the environment,
which the worker processes inherit before they load numpy and torch.
"""

from distributed.cli.dask_worker import main

if __name__ == "__main__":
    main()
