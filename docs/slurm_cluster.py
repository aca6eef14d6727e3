"""A dask cluster on SLURM for ``make reproduce``: edit the numbers, then ``python docs/slurm_cluster.py``.

It asks SLURM for workers with one GPU each, prints the command that sends the run to them, and holds them until Enter.
``--show`` prints the job script and asks for nothing.
"""

import shutil
import sys

from dask_jobqueue import SLURMCluster

from ruranet_utils.storage import paths

WORKERS = 8  # jobs, each with one worker on one GPU
PROFILE = "open"
PYTHON = paths.ROOT / ".venv/bin/python"

if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--show"]):
        sys.exit(__doc__)
    if not sys.argv[1:] and not shutil.which("sbatch"):
        sys.exit("there is no sbatch here: run this where jobs are submitted")
    cluster = SLURMCluster(
        cores=1,
        processes=1,
        memory="16GB",
        walltime="02:00:00",
        job_extra_directives=["--gres=gpu:1"],
        # "native" as make reproduce sets it for every profile but synthetic; a worker that differs refuses to work
        job_script_prologue=[f"cd {paths.ROOT}", "export RURANET_INSTRUCTIONS=native"],
        # the first python fixes the instructions as that variable says, then starts the worker
        python=f"{PYTHON} -m ruranet_utils.storage.machine {PYTHON}",
        log_directory=str(paths.store() / "slurm"),
    )
    if "--show" in sys.argv:
        print(cluster.job_script())
        sys.exit()
    cluster.scale(jobs=WORKERS)
    cluster.wait_for_workers(1)
    print(f"make reproduce PROFILE={PROFILE} ARGS='--dask {cluster.scheduler_address}'", flush=True)
    input("Enter ends the cluster. ")
