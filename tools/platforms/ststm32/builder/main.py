"""SCons recipe of the offline stand-in: compile, link, size and upload, as the official platform does without a framework."""

import shutil
import subprocess

from SCons.Script import COMMAND_LINE_TARGETS, AlwaysBuild, Builder, Default, DefaultEnvironment

TOOLS = {"CC": "gcc", "CXX": "g++", "AS": "as", "AR": "gcc-ar", "RANLIB": "gcc-ranlib", "OBJCOPY": "objcopy", "SIZETOOL": "size"}

env = DefaultEnvironment()
board = env.BoardConfig()
arch = ["-mthumb", "-mcpu=" + board.get("build.cpu")]


def upload(target, source, env):
    """Writes the program to the board with OpenOCD. Returns the exit status; says what to do when it fails."""
    if shutil.which("openocd") is None:
        print("OpenOCD is not installed; run: sudo apt-get install --no-install-recommends openocd")
        return 1
    script = f"program {{{env.subst('$BUILD_DIR/firmware.elf')}}} verify reset exit"
    target_file = f"target/{board.get('debug.openocd_target')}.cfg"
    chosen = [env.subst(flag) for flag in env.get("UPLOAD_FLAGS", [])]  # such as: -c, adapter serial 0669FF...
    done = subprocess.run(["openocd", *chosen, "-f", "interface/stlink.cfg", "-f", target_file, "-c", script])
    if done.returncode != 0:
        print(
            "No board was written: is it plugged in at its ST-Link USB socket, and may this user open it (udev rules)?",
            flush=True,
        )
    return done.returncode


if shutil.which("arm-none-eabi-gcc") is None:
    print("arm-none-eabi-gcc is not installed; run:")
    print("sudo apt-get install --no-install-recommends gcc-arm-none-eabi libnewlib-arm-none-eabi")
    env.Exit(3)
env.Replace(**{key: f"arm-none-eabi-{program}" for key, program in TOOLS.items()})
env.Replace(
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
    SIZEPRINTCMD="$SIZETOOL -B -d $SOURCES",
    SIZEPROGREGEXP=r"^\.(?:isr_vector|text|rodata|data|ARM\.exidx)\s+(\d+)",
    SIZEDATAREGEXP=r"^\.(?:data|bss|stack)\s+(\d+)",
)
env.Append(
    CCFLAGS=[*arch, "-Os", "-Wall", "-ffunction-sections", "-fdata-sections"],
    ASFLAGS=arch,
    ASPPFLAGS=["-x", "assembler-with-cpp"],
    CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")],
    LINKFLAGS=[*arch, "-Os", "-Wl,--gc-sections,--relax"],
    LIBS=["c", "gcc", "m"],
    BUILDERS={"Bin": Builder(action=env.VerboseAction("$OBJCOPY -O binary $SOURCE $TARGET", "Building $TARGET"), suffix=".bin")},
)

built = "nobuild" in COMMAND_LINE_TARGETS
elf = "$BUILD_DIR/firmware.elf" if built else env.BuildProgram()
image = "$BUILD_DIR/firmware.bin" if built else env.Bin("$BUILD_DIR/firmware", elf)
env.Depends(image, "checkprogsize")
AlwaysBuild(env.Alias("nobuild", image), env.Alias("size", elf, env.VerboseAction("$SIZEPRINTCMD", "Calculating size")))
custom = env.subst("$UPLOAD_PROTOCOL") == "custom"
AlwaysBuild(env.Alias("upload", image, [env.VerboseAction("$UPLOADCMD" if custom else upload, "Uploading $SOURCE")]))
Default([env.Alias("buildprog", image), "size"])
