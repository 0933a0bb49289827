"""PlatformIO, after the build is described: a changed linker script links again."""

from pathlib import Path

from SCons.Script import DefaultEnvironment

env = DefaultEnvironment()

if env.get("LDSCRIPT_PATH"):
    env.Depends("$BUILD_DIR/${PROGNAME}${PROGSUFFIX}", str(Path(env["PROJECT_DIR"]) / env.subst("$LDSCRIPT_PATH")))
