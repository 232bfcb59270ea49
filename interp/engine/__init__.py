"""How many runs are trained: one after the other, in several processes, or on a Ray cluster.

    store = Store(Path("runs"))
    outcome = run_jobs([store.job(config) for config in configs], EngineSettings(workers=4))
    outcome.require_all()
    run = store.run(configs[0])

A run is addressed by what determines its bytes, so that one that two studies need is trained once. Runs
go on where they were stopped, whoever stopped them; every engine gives the same bytes. Files of runs are
reached through a shared path, on a Ray cluster too: nothing is sent back, and a machine that does not see
the store under the same name trains nothing, but ends the batch with an error.
"""

from interp.engine.jobs import BatchError, EngineSettings, Failure, Job, Outcome
from interp.engine.kinds import KINDS, Kind
from interp.engine.schedule import run_jobs
from interp.engine.store import RUNS_VERSION, Store

__all__ = [
    "KINDS",
    "RUNS_VERSION",
    "BatchError",
    "EngineSettings",
    "Failure",
    "Job",
    "Kind",
    "Outcome",
    "Store",
    "run_jobs",
]
