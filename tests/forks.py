"""The command, or a module, in many processes of which none has to import torch anew."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

Server = Callable[..., dict[str, float]]

# Loads torch once, then runs each command in a fork and sends it a signal.
SERVER = """
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
            sys.argv = [job.get("module", "unetsep"), *job["arguments"]]
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


@contextlib.contextmanager
def forks(*modules: str) -> Iterator[Server]:
    """Send jobs that run at the same time, get the exit code and time of the last.

    A job has ``arguments`` of the command or of a ``module``, and may have files in the place of
    ``stdin``, ``stdout`` and ``stderr``, a ``folder`` to run in, a ``signal`` that it gets
    ``after`` so many seconds, ``nohup``, and the size in ``bytes`` over which a file fails as on
    a full disk.

    Parameters
    ----------
    modules
        Those that jobs find imported, besides the command.
    """
    imports = "".join(f"import {module}\n" for module in modules)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", imports + SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdin
    assert process.stdout

    def run(*jobs: dict[str, object], **job: object) -> dict[str, float]:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([*jobs, job]) + "\n")
        process.stdin.flush()
        last: dict[str, float] = json.loads(process.stdout.readline())[-1]
        return last

    yield run
    process.stdin.close()
    process.wait()
    process.stdout.close()
