"""SCons recipe of the offline stand-in: build a program of this computer and run it."""

from SCons.Script import AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
for tool in ("gcc", "g++", "gnulink", "ar"):
    env.Tool(tool)
env.Replace(PROGNAME="program", ASPPFLAGS=["-x", "assembler-with-cpp"])
program = env.BuildProgram()
AlwaysBuild(env.Alias("exec", program, env.VerboseAction("$BUILD_DIR/$PROGNAME", "Running $BUILD_DIR/$PROGNAME")))
AlwaysBuild(env.Alias("upload", program))
Default([env.Alias("buildprog", program)])
