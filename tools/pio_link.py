"""PlatformIO, after the build is described: a changed linker script links again."""

from SCons.Script import DefaultEnvironment

env = DefaultEnvironment()

if env.get("LDSCRIPT_PATH"):
    env.Depends("$BUILD_DIR/${PROGNAME}${PROGSUFFIX}", "$PROJECT_DIR/$LDSCRIPT_PATH")
