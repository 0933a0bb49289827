"""The process of `python -m tinyredux` and of the console script: what is settled before NumPy is imported, and at the end."""

import atexit
import os
import signal
import sys
import threading
from typing import NoReturn

# Products here are small and come in thousands; a BLAS that lets all cores wait for each other takes many times the time.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def main() -> NoReturn:
    """Runs the command line and ends the process with its exit code, also where a thread of the user's network still runs."""
    cores = None if "OMP_NUM_THREADS" in os.environ else os.cpu_count()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else SIGTERM ends the process at once, as usual
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    for name in THREADS:
        os.environ.setdefault(name, "1")
    for number in range(3):  # a closed one would be the number of the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin, sys.stderr = (stream or open(os.devnull, mode) for stream, mode in ((sys.stdin, "r"), (sys.stderr, "w")))
    try:
        from tinyredux.cli.app import main as run

        code = run(cores=cores)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    for number in (signal.SIGINT, signal.SIGTERM):  # the answer is out: what ends the process now says nothing more
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
