"""Start `jobhistory` as a process, by its script or in a fraction of that time.

Other programs that are written in Python can be started in the same way.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import sysconfig
import traceback
import warnings
from functools import partial

import jobhistory.cli.app
import jobhistory.cli.program
import jobhistory.cli.wrapper.run  # noqa: F401 - lest each fork imports them
from jobhistory.cli import main
from tests.forking import close_engines

SCRIPT = os.path.join(sysconfig.get_path("scripts"), "jobhistory")


def start(*arguments, env, program=main, **options):
    """Start `jobhistory` in a fork of this process, which has imported it; return a `Popen`.

    Its files, arguments, signals and exit status are those of any process, but nothing runs at the
    exit of the interpreter.
    """
    arguments = [os.fsdecode(each) for each in arguments]
    close_engines()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; the child uses nothing that a thread may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            ["a fork"],
            preexec_fn=partial(_become, program, arguments, env),
            restore_signals=False,
            **options,
        )


def run(
    *arguments,
    env,
    input=None,  # noqa: A002 - as `subprocess.run` calls it
    text=True,
    timeout=60,
    **options,
):
    """Run `jobhistory` in such a fork; return what `subprocess.run` would."""
    pipe = subprocess.PIPE
    stdin = subprocess.DEVNULL if input is None else pipe
    process = start(
        *arguments, env=env, stdin=stdin, stdout=pipe, stderr=pipe, text=text, **options
    )
    with process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def _become(program, arguments, environment):
    status = 1
    try:
        gc.freeze()  # what the parent left is the parent's, files and connections above all
        # `Popen` returns when the child has closed its end of a pipe, as any program does at once.
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        # A shell that starts the tests in the background lets them ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "w" if n else "r") for n in range(3))
        sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
        logging.root.handlers.clear()
        program(arguments)
        status = 0
    except SystemExit as exit_:
        status = exit_.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
