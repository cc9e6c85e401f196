"""The command, or a module, in many processes of which none has to import torch anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys

# Loads torch once, then runs each command in a fork and sends it a signal.
PARENT = """
import json, os, random, resource, runpy, signal, sys, time
import unetsep.cli.separate
import torch
from unetsep.cli import run
from unetsep.cli.interrupts import INTERRUPTED, obey_signals
torch.set_num_threads(1)

def start(job):
    ready, begin = os.pipe()
    pid = os.fork()
    if pid == 0:
        if job.get("stdin"):
            os.dup2(os.open(job["stdin"], os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            if job.get(name):
                os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(job.get("folder", "."))
        signal.alarm(300)  # or who waits for it would wait for ever
        if job.get("bytes"):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["bytes"], job["bytes"]))
        code = 99
        try:
            signal.signal(signal.SIGHUP, signal.SIG_IGN if job.get("nohup") else signal.SIG_DFL)
            obey_signals()
            os.write(begin, b"x")
            sys.argv = [job.get("module", "unetsep"), *map(str, job["arguments"])]
            if "module" in job:
                runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
            else:
                run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except KeyboardInterrupt:
            code = INTERRUPTED  # in these lines
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(code)
    os.read(ready, 1)
    os.close(ready)
    os.close(begin)
    return pid

def finish(pid, job):
    begun = time.monotonic()
    if job.get("signal"):
        time.sleep(job["after"])
        os.kill(pid, job["signal"])
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begun}

# Not sys.stdin: what it read ahead of itself would be the input of forks.
for line in os.fdopen(os.dup(0)):
    jobs = json.loads(line)
    pids = [start(job) for job in jobs]
    print(json.dumps([finish(pid, job) for pid, job in zip(pids, jobs)]), flush=True)
"""


class Forks:
    """Runs jobs in forks of a process that has imported torch.

    A job has ``arguments`` of the command or of a ``module``, and may have files in the place of
    ``stdin``, ``stdout`` and ``stderr``, a ``folder`` to run in, a ``signal`` that it gets
    ``after`` so many seconds, ``nohup``, and the size in ``bytes`` over which a file fails as on
    a full disk.

    Parameters
    ----------
    modules
        Those that jobs find imported, besides the command.
    """

    def __init__(self, *modules: str) -> None:
        imports = "".join(f"import {module}\n" for module in modules)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", imports + PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, **job: object) -> dict[str, float]:
        """Exit ``code`` and ``seconds`` of a job."""
        return self.run_together(job)[0]

    def run_together(self, *jobs: dict[str, object]) -> list[dict[str, float]]:
        """The same for each of several jobs that run at the same time."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(jobs, default=str) + "\n")
        self._process.stdin.flush()
        ended: list[dict[str, float]] = json.loads(self._process.stdout.readline())
        return ended
