"""The sealed judge: a submission runs in a process of its own, which only answers calls; marks are made here.

Questions and answers are plain data on a pipe, so that nothing of a submission runs where its mark is made, and the cases
come from a seed that it cannot know. The process sees Python and its packages, but no tinyredux: neither the solutions nor the
functions of the library that do the same. Read `Submission.ask` first, then `child.py`, then `seal`.
"""

import functools
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinyredux.course import child, given
from tinyredux.course.teaching import Verdict, failed, judged
from tinyredux.device import MissingTool
from tinyredux.files import LIBRARY, ROOT, SETUP

CALL_SECONDS = 5.0
GRACE_SECONDS = 3.0  # a cell or call is interrupted first; what cannot be interrupted is ended after these
START_SECONDS = 60.0
MOST_PROCESSES = 64
MOST_MEMORY, MOST_FOLDER, MOST_ANSWERS = 2 << 30, 64 << 20, 4 << 20  # bytes: of its processes, its files, its answers
UNSEALED = (
    "submissions run unsealed, with limits only: they can read and write what you can; install bubblewrap 0.7 or later, and let"
    " it make namespaces"
)
_NOBODY = 65534
_PACKAGES = [path for path in sys.path if path.endswith("-packages")]


class Stopped(KeyboardInterrupt):
    """A call was interrupted, or the process does not answer any more: `teaching.check` passes it on."""


@functools.cache
def seal() -> tuple[str, ...]:
    """Returns the start of a command line that seals what follows; empty where bubblewrap is missing or does not work."""
    spaces = ["--unshare-all"] if os.geteuid() else [f"--unshare-{name}" for name in ("ipc", "pid", "net", "uts", "cgroup-try")]
    room = ("--perms", "1777", "--size", str(MOST_FOLDER), "--tmpfs")
    command = ["bwrap", *spaces, "--die-with-parent", "--new-session", "--proc", "/proc", "--dev", "/dev", *room, "/dev/shm"]
    command += [*room, "/tmp", "--chdir", "/tmp"]
    seen = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", sys.prefix, sys.base_prefix)
    shown = dict.fromkeys((*seen, *_PACKAGES))
    ours = {str(ROOT), str(LIBRARY), *(f"{path}/tinyredux" for path in _PACKAGES)}
    hidden = [path for path in ours if Path(path).is_dir() and any(Path(path).is_relative_to(each) for each in shown)]
    for parent in sorted({str(parent) for path in shown for parent in Path(path).parents} - {"/", "/tmp"}):
        command += ["--perms", "0755", "--dir", parent]
    for path in sorted({*shown, *hidden}, key=lambda path: len(Path(path).parts)):
        command += ["--tmpfs", path] if path in hidden else ["--ro-bind-try", path, path]
    for module in (child, given):
        command += ["--ro-bind", str(module.__file__), f"/judge/{Path(str(module.__file__)).name}"]
    for path in (*hidden, "/dev", "/"):
        command += ["--remount-ro", path]
    try:
        works = shutil.which("bwrap") and not subprocess.run([*command, "true"], capture_output=True, timeout=20).returncode
    except (OSError, subprocess.TimeoutExpired):
        works = False
    return tuple(command) if works else ()


def _processes() -> dict[int, tuple[int, int, int, int]]:
    """Returns the parent, the user, the threads and the resident bytes of each process, where the system tells."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (path / "stat").read_bytes().rpartition(b")")[2].split()
            pages = int(fields[21])
            found[int(path.name)] = int(fields[1]), path.stat().st_uid, int(fields[17]), pages * os.sysconf("SC_PAGESIZE")
    return found


class Submission:
    """The process of one submission."""

    def __init__(self, folder: str, file_seconds: float) -> None:
        """Starts it with a folder to work in. Raises MissingTool where it does not start, as nobody shall get zero for that."""
        home = "/tmp" if seal() else folder
        environment = {
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin", "HOME": home, "TMPDIR": home, "IPYTHONDIR": home,
            "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(_PACKAGES), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        command = [*seal(), sys.executable, "-P", "/judge/child.py" if seal() else str(child.__file__)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env=environment,
            start_new_session=True,
        )  # fmt: skip
        user = os.geteuid() or (_NOBODY if seal() else 0)
        tasks = sum(threads for _, owner, threads, _ in _processes().values() if owner == user)
        limits = {
            "RLIMIT_AS": 2 * MOST_MEMORY, "RLIMIT_FSIZE": MOST_FOLDER, "RLIMIT_NPROC": tasks + MOST_PROCESSES, "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 256, "RLIMIT_CPU": int(file_seconds + START_SECONDS),
        }  # fmt: skip
        self._why, self._text, self._bytes = "", b"", 0
        self._file_seconds, self._until = START_SECONDS, time.monotonic() + START_SECONDS
        try:
            self.ask(START_SECONDS, "its start", limits=limits, user=user)
        except Stopped:
            raise MissingTool(f"the process that runs a lab does not start; it needs IPython; run: {SETUP}") from None
        self._file_seconds, self._until = file_seconds, time.monotonic() + file_seconds

    def ask(self, seconds: float, what: str, **question: Any) -> dict[str, Any]:
        """Returns the answer to a question; lines that are none are passed over. Raises Stopped, and then for ever."""
        token, until = secrets.token_hex(8), time.monotonic() + seconds + GRACE_SECONDS
        left = (json.dumps({"id": token, "seconds": seconds} | question) + "\n").encode()
        while not self._why:
            to_child, from_child = self._process.stdin.fileno(), self._process.stdout.fileno()  # type: ignore[union-attr]
            readable, writable, _ = select.select([from_child], [to_child] if left else [], [], 0.2)
            try:
                if writable:  # there is room for 4096 bytes, so that this never waits
                    left = left[os.write(to_child, left[:4096]) :]
                said = os.read(from_child, 1 << 16) if readable else None
            except OSError:
                said = b""
            self._bytes += len(said or b"")
            *lines, self._text = (self._text + (said or b"")).split(b"\n")
            for line in lines:
                with suppress(ValueError, RecursionError):
                    answer = json.loads(line)
                    if isinstance(answer, dict) and answer.get("id") == token:
                        return answer
            now = time.monotonic()
            if said == b"":
                self._why = f"its process ended in {what}: did it end the process, or take all memory?"
            elif self._bytes > MOST_ANSWERS:
                self._why = f"it answered with more than {MOST_ANSWERS >> 20} MiB"
            elif now >= self._until:
                self._why = f"it took more than {self._file_seconds:g} s"
            elif now >= until:
                self._why = f"{what} took more than {seconds:g} s and could not be interrupted"
            elif not readable and not writable:
                self._why = self._too_much()
        self.end()
        raise Stopped(self._why)

    def _family(self) -> dict[int, int]:
        """Returns the resident bytes of the process and of all that descend from it."""
        processes, family = _processes(), [self._process.pid]
        for pid in family:
            family += [child for child, (parent, *_) in processes.items() if parent == pid]
        return {pid: processes[pid][3] for pid in family if pid in processes}

    def _too_much(self) -> str:
        family = self._family()
        if sum(family.values()) > MOST_MEMORY:
            return f"it took more than {MOST_MEMORY >> 30} GiB of memory"
        return f"it started more than {MOST_PROCESSES} processes" if len(family) > MOST_PROCESSES + 4 else ""

    def end(self) -> None:
        """Ends the process and all that it started. What is sealed ends with its namespace, wherever it went."""
        if self._process.returncode is None:  # not waited for yet, so that its number is still its own
            for kill, pid in ((os.killpg, self._process.pid), *((os.kill, pid) for pid in self._family())):
                with suppress(OSError):
                    kill(pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            stream.close()  # type: ignore[union-attr]
        self._process.wait()

    def answer(self, name: str) -> Any:
        """Returns what a submission has under a name: a value, or a function that asks for each call. Raises Stopped."""

        def call(*arguments: Any) -> Any:
            return self._value(self.ask(CALL_SECONDS, f"a call of {name}", name=name, arguments=repr(arguments)))

        found = self.ask(CALL_SECONDS, f"a look at {name}", name=name)
        return call if "function" in found else self._value(found)

    @staticmethod
    def _value(answer: dict[str, Any]) -> Any:
        if answer.get("raised") == "KeyboardInterrupt":
            raise Stopped("interrupted, because it took too long: is there an endless loop in it?")
        if "raised" in answer:
            raised = str(answer["raised"])[:100]
            raise NotImplementedError if raised == "NotImplementedError" else _named(raised, Exception)(answer.get("text"))
        return _named(str(answer["object"])[:100], object)() if "object" in answer else answer.get("value")


def _named(name: str, base: type) -> Callable[..., Any]:
    """Returns a type of a submission's name, which is all that is known of it here."""
    return type(name if name.isidentifier() else "object", (base,), {})


def verdicts(sources: list[str], names: tuple[str, ...], seed: int, folder: str, *seconds: float) -> list[Verdict]:
    """Returns a verdict for each exercise, after the cells of code have run; `seconds` are those of a cell and of the file."""
    cell_seconds, file_seconds = seconds
    process = Submission(folder, file_seconds)
    try:
        with suppress(Stopped):
            for number, source in enumerate(sources, 1):
                process.ask(cell_seconds, f"cell {number}", cell=source)
        return [_verdict(process, name, seed) for name in names]
    finally:
        process.end()


def _verdict(process: Submission, name: str, seed: int) -> Verdict:
    try:
        return judged(name, process.answer(name.rpartition(".")[2]), seed)
    except MissingTool:  # nobody shall get zero for that
        raise
    except Exception as wrong:  # of the look at a value
        return failed(name, f"{type(wrong).__name__}: {wrong}")
    except Stopped as stopped:
        return failed(name, str(stopped))
