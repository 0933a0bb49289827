"""PlatformIO, before the build: which network goes into the firmware, and the linker's flags (both read in platformio.ini)."""

import os
import subprocess
from pathlib import Path

from SCons.Script import DefaultEnvironment

env = DefaultEnvironment()
project = Path(env["PROJECT_DIR"])
config = env.GetProjectConfig()
testing = "test" in env.GetBuildType()


def model_folder():
    """Returns the Artifact to build: $TINYREDUX_MODEL, else firmware/generated, else a golden one of the tests."""
    named = os.environ.get("TINYREDUX_MODEL")
    golden = sorted(path.parent for path in (project / "tests" / "golden").glob("**/model.c"))
    found = [Path(named)] if named else [project / "firmware" / "generated", *golden]
    for folder in found:
        if (folder / "model.c").is_file():
            return folder
    env.Exit(f"no network in {found[0]}; write one: python -m tinyredux compile lenet --out firmware/generated")


if env["PIOPLATFORM"] == "ststm32":
    cpu = env.BoardConfig().get("build.cpu")
    core = config.get(cpu, "flags").split()
    env.Append(ASPPFLAGS=core)  # build_flags go to the compiler alone, and generated kernels keep values in the FPU's registers
    env.Append(LINKFLAGS=core + config.get("flags", "link").split())
else:
    env.Append(ASPPFLAGS=["-Wa,--noexecstack"])

if testing:  # a test brings its own main and needs no network
    for pattern in ("*runtime/main.c", "*runtime/link.c"):
        env.AddBuildMiddleware(lambda node: None, pattern)
    vectors = Path(env.subst("$BUILD_DIR")) / "vectors"
    command = [env.subst("$PYTHONEXE"), str(project / "tests" / "helpers" / "kernel_vectors.py"), str(vectors), "cortex-m4"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(project)})
    env.Append(CPPPATH=["$PROJECT_INCLUDE_DIR", str(vectors)])
    env.BuildSources("$BUILD_DIR/vectors_built", str(vectors), "+<*.c> +<*.S>")
else:
    folder = model_folder()
    print(f"Network: {folder}")
    env.Append(CPPPATH=["$PROJECT_INCLUDE_DIR", str(folder)])
    env.BuildSources("$BUILD_DIR/model", str(folder), "+<*.c> +<*.S>")
    for blob in folder.glob("*.bin"):
        env.Depends("$BUILD_DIR/model/weights.o", str(blob))
