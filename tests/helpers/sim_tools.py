"""Small bare-metal programs for the simulator's tests: compiled here, linked for the STM32F469 unless said otherwise."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

HEADER = """
#include <stdint.h>
#define REG(a) (*(volatile uint32_t *)(a))
static inline long semihost(long op, const void *arg)
{
    register long r0 __asm__("r0") = op;
    register const void *r1 __asm__("r1") = arg;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
static inline void leave(int code) { uint32_t block[2] = {0x20026, (uint32_t)code}; semihost(0x20, block); }
static inline void print(const char *text) { semihost(4, text); }
void number(uint32_t value);
int main(void);
"""

START = """
extern uint32_t _estack, _sidata, _sdata, _edata, _sbss, _ebss;
void number(uint32_t value)
{
    char text[12] = "0000000000\\n";
    for (int i = 9; i >= 0; i--, value /= 10) text[i] = (char)('0' + value % 10);
    print(text);
}
void fault(void) { for (;;) { } }
void __attribute__((weak)) tick(void) { }
void __attribute__((weak)) service(void) { }
void __attribute__((weak)) pend(void) { }
void reset(void)
{
    REG(0xE000ED88) |= 0xFu << 20;
    for (uint32_t *to = &_sdata, *from = &_sidata; to < &_edata;) *to++ = *from++;
    for (uint32_t *to = &_sbss; to < &_ebss;) *to++ = 0;
    main();
    for (;;) { }
}
__attribute__((section(".isr_vector"), used)) void (*const vectors[16])(void) = {
    (void (*)(void))&_estack, reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, service, fault, 0, pend, tick};
"""

LINK = """
MEMORY { FLASH (rx) : ORIGIN = FLASH_AT, LENGTH = 512K
 RAM (rwx) : ORIGIN = RAM_AT, LENGTH = 128K }
_estack = ORIGIN(RAM) + LENGTH(RAM);
SECTIONS {
 .text : { KEEP(*(.isr_vector)) *(.text*) *(.rodata*) . = ALIGN(4); } >FLASH
 _sidata = LOADADDR(.data);
 .data : { _sdata = .; *(.data*) *(.ramcode*) . = ALIGN(4); _edata = .; } >RAM AT>FLASH
 .bss (NOLOAD) : { _sbss = .; *(.bss*) *(COMMON) . = ALIGN(4); _ebss = .; } >RAM
}
"""


def build(folder: Path, source: str, *flags: str, cpu: str = "cortex-m4", at: tuple[int, int] = (0x08000000, 0x20000000)) -> Path:
    """Returns the ELF of a program: START, and `source` after HEADER, compiled with -O2 for flash and RAM `at` two addresses."""
    name = hashlib.sha256(repr((source, flags, cpu, at)).encode()).hexdigest()[:12]
    code, start, script, elf = (folder / f"{name}{end}" for end in (".c", "_start.c", ".ld", ".elf"))
    memory = LINK.replace("FLASH_AT", hex(at[0])).replace("RAM_AT", hex(at[1]))
    for path, text in ((code, HEADER + source), (start, HEADER + START), (script, memory)):
        path.write_text(text)
    fpu = "fpv4-sp-d16" if cpu == "cortex-m4" else "fpv5-sp-d16"
    command = ["arm-none-eabi-gcc", "-mthumb", f"-mcpu={cpu}", f"-mfpu={fpu}", "-mfloat-abi=hard", "-O2", "-ffreestanding"]
    command += ["-nostdlib", "-fno-tree-loop-distribute-patterns", *flags, f"-Wl,-T,{script}", str(start), str(code), "-lgcc"]
    subprocess.run([*command, "-o", str(elf)], check=True, capture_output=True, text=True)
    return elf
