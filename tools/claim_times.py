"""What it takes to make a claim's records again: seconds of one core and memory of each command; appendix D reads the record.

    python tools/claim_times.py
    python tools/claim_times.py pex.alone msfcnn.loose

Each command that stands behind a claim runs once, as `reproduce --profile full` runs it, and writes its record again. Counted are
the seconds that it and what it starts (compilers, the simulator) spend on processors, user and system together, which do not
depend on what else the computer does. A command whose line is in the record is not run again. Training goes last: hours.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys

from tqdm import tqdm

from tinyredux.course.claims import all_claims
from tinyredux.files import ROOT, write_whole

RECORD = ROOT / "data" / "records" / "claim_times.json"


def run(command: str) -> dict[str, str | float]:
    """Returns a command, its seconds and the most MiB that one of its processes held. Raises CalledProcessError."""
    words = shlex.split(command if command.startswith("tools/") else f"-m tinyredux {command}")
    started = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(started.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(code, command)
    return {"command": command, "seconds": round(used.ru_utime + used.ru_stime, 1), "most_mib": used.ru_maxrss >> 10}


def main() -> None:
    """Runs what is not in the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", help="claims (default: all)")
    options = parser.parse_args()
    wanted = [claim for claim in all_claims() if claim.evidence and (not options.claims or claim.id in options.claims)]
    commands = dict.fromkeys(command for claim in wanted for command in claim.evidence.commands)
    runs = json.loads(RECORD.read_text())["runs"] if RECORD.is_file() else []
    left = [command for command in commands if command not in {run["command"] for run in runs}]
    for command in tqdm(sorted(left, key=lambda command: "trec_sweep" in command), "commands", disable=None):
        runs.append(run(command))
        record = {"schema": 1, "kind": "claim_times", "command": "python tools/claim_times.py", "runs": runs}
        write_whole(RECORD, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
