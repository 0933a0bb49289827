"""The simulator on small programs: how they end, what they may use, and figures that can be worked out by hand."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from compiled import BOARDS, NEEDS_COMPILER
from qemu import count_in_qemu
from sim_tools import build

from tinyredux.boards import find_board
from tinyredux.cli.app import main
from tinyredux.simulator import MissingTool, error_band
from tinyredux.simulator.program import load_image
from tinyredux.simulator.run import Machine, simulate

pytestmark = NEEDS_COMPILER
F469 = find_board("disco_f469ni")
TICK = "REG(0xE000E014) = 9999; REG(0xE000E018) = 0; REG(0xE000E010) = 7;"

ENDS = {  # source, reason, exit code, words of the end
    "semihosting exit": ('int main(void) { print("hello\\n"); leave(7); }', "exit", 7, "semihosting exit"),
    "return from main": ("int main(void) { return 5; }", "return", 5, "main returned"),
    "endless loop": ("int main(void) { for (;;) { } }", "return", 0, "endless loop in main"),
    "no memory": (
        "int bad(int *p) { return *p; } int main(void) { return bad((int *)0x70000000); }", "fault", 1, "read of 0x70000000",
    ),
    "write to flash": ("int main(void) { REG(0x08000100) = 1; return 0; }", "fault", 1, "write to 0x08000100"),
    "undefined instruction": ('int main(void) { __asm__("udf #0"); return 0; }', "fault", 1, "undefined instruction"),
    "jump into nothing": ("int main(void) { ((void (*)(void))0x30000001)(); return 0; }", "fault", 1, "coming from main"),
    "stack overflow": (
        "int deep(int n) { volatile int a[99]; a[0] = n; return deep(n + 1) + a[0]; } int main(void) { return deep(1); }",
        "fault", 1, "in deep",
    ),
    "reset": ("int main(void) { REG(0xE000ED0C) = 0x05FA0004; for (;;) { } }", "exit", 1, "reset the system in main"),
    "stuck handler": (
        f"void tick(void) {{ for (;;) {{ }} }} int main(void) {{ {TICK} for (;;) {{ }} }}",
        "fault", 1, "handler of exception 15",
    ),
    "nothing left but SysTick": (
        f'void tick(void) {{ }} int main(void) {{ {TICK} for (;;) __asm__("wfi"); }}',
        "return", 0, "that only SysTick interrupts",
    ),
    "exit that ends in a loop": (
        f"void tick(void) {{ }} void _exit(int code) {{ for (;;) {{ }} }} int main(void) {{ {TICK} _exit(9); return 0; }}",
        "exit", 9, "exit was called",
    ),
    "input that never comes": (
        "int main(void) { while (!(REG(0x40004800) & 32)) { } return 0; }", "limit", 3, "waits for console input",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program's end, and what the verb makes of it: an exit code, and a band beside the cycles."""
    source, reason, code, text = ENDS[name]
    elf = build(tmp_path, source, "-fno-optimize-sibling-calls", "-fno-inline")
    command = ["simulate", str(elf), "--board", "disco_f469ni", "--max-instructions", "5000000"]
    returned = main([*command, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert (result["reason"], result["exit"]) == (reason, code) and text in result["end"]
    assert returned == (3 if reason == "limit" else min(code, 1))
    fault = result["fault"]
    assert (fault is not None) == (reason == "fault")
    assert fault is None or (str(fault["kind"]) in result["end"] and fault["function"] and isinstance(fault["address"], int))
    assert "SysTick" not in text or result["instructions"] < 1000, "the counts are those of when it fell quiet"
    assert result["functions"] and result["error_band"] == list(error_band("cortex-m4"))
    if name == "no memory":
        assert main(command) == returned
        shown = capsys.readouterr().out
        assert "a board takes 0.94 to 1.07 of the modelled cycles" in shown and result["end"] in shown


COUNT = "volatile int n; void tick(void) { n++; } int main(void) { "
SAYS = {
    "SysTick": (f"{COUNT} {TICK} while (n < 10) {{ }} number(n); leave(0); }}", "10"),
    "WFI": (f'{COUNT} {TICK} while (n < 9) __asm__("wfi"); number(n); leave(0); }}', "9"),
    "SVC and PendSV, masked and not": (
        """volatile int n; void service(void) { n += 100; } void pend(void) { n++; }
        int main(void) { __asm__ volatile("svc 3\\n cpsid i"); REG(0xE000ED04) = 1 << 28; number(n);
         __asm__ volatile("cpsie i\\n isb"); number(n); leave(0); }""",
        "100 101",
    ),
    "a second stack": (
        """volatile int n; uint32_t stack[64]; void service(void) { n++; }
        int main(void) { uint32_t sp;
         __asm__ volatile("msr psp, %0\\n movs r0, #2\\n msr control, r0\\n isb\\n svc 1" :: "r"(stack + 64) : "r0");
         __asm__ volatile("mov %0, sp" : "=r"(sp)); number(n); number(sp - (uint32_t)stack <= 256); leave(0); }""",
        "1 1",
    ),
    "float registers survive interrupts": (
        """volatile int n; volatile float f; void tick(void) { n++; f = f * 1.5f + n; }
        float __attribute__((noinline)) work(volatile float *x) { float a = *x, b = a * 2, c = a * 3;
         for (int i = 0; i < 9000; i++) { a = a * 1.0001f + b; b = b * 0.9999f + c; c = c * 0.5f + 1; } return a + b + c; }
        int main(void) { volatile float one = 1; float quiet = work(&one); REG(0xE000E014) = 777; REG(0xE000E018) = 0;
         REG(0xE000E010) = 7; float busy = work(&one); number(n > 100); number(quiet == busy); leave(0); }""",
        "1 1",
    ),
    "a timer counts": (
        """int main(void) { REG(0x40000028) = 9; REG(0x40000014) = 1; REG(0x40000000) = 1; uint32_t a = REG(0x40000024);
         while (REG(0x40000024) - a < 100) { } number(REG(0x40000024) - a < 120); leave(0); }""",
        "1",
    ),
    "conditional loads and stores": (
        """volatile int a = 7, b; int main(void) { int r = 1; __asm__ volatile(
         "cmp %2, #1\\n ittee eq\\n ldreq r0, [%0]\\n streq r0, [%1]\\n ldrne r0, [%1]\\n strne r0, [%0]\\n mov %2, r0\\n"
         "cmp %2, #1\\n itt eq\\n ldreq %2, [%1]\\n streq %2, [%0]" : : "r"(&a), "r"(&b), "r"(r) : "r0", "memory", "cc");
         number(a); number(b); leave(0); }""",
        "7 7",
    ),
    "an event that was sent, and one of an interrupt": (
        f"""{COUNT} {TICK} __asm__ volatile("sev\\n wfe"); number(n);
         while (n < 3) __asm__ volatile("wfe"); number(n); leave(0); }}""",
        "0 3",
    ),
    "the return from an interrupt is an event": (
        f"""{COUNT} {TICK} while (n < 1) {{ }} __asm__ volatile("wfe"); number(n);
         __asm__ volatile("wfe"); number(n); leave(0); }}""",
        "1 2",
    ),
    "floating point that is switched off and on again": (
        """__attribute__((noinline)) int twice(int x) { volatile float f = x; return (int)(f + f); }
        int main(void) { number(twice(4)); REG(0xE000ED88) = 0; REG(0xE000ED88) = 0xF << 20; number(twice(5)); leave(0); }""",
        "8 10",
    ),
    "code in RAM": (
        """__attribute__((section(".ramcode"), noinline)) int twice(int x) { return 2 * x; }
        int main(void) { volatile int x = 4; int (*volatile f)(int) = twice; number(f(x)); leave(0); }""",
        "8",
    ),
    "semihosting files": (
        """int main(void) { long in[3] = {(long)":tt", 0, 3}; long h = semihost(1, in); char text[2] = "xy";
         long get[3] = {h, (long)text, 2}; number(semihost(6, get)); number(text[0] * 1000 + text[1]);
         long put[3] = {h, (long)text, 2}; number(semihost(5, put)); leave(0); }""",
        "0 97098 ab0",
    ),
}


@pytest.mark.parametrize("name", SAYS)
def test_says(name: str, tmp_path: Path) -> None:
    source, expected = SAYS[name]
    result = simulate(build(tmp_path, source), F469, input_bytes=b"ab", max_instructions=5_000_000)
    words = re.sub(r"0{1,9}(\d+)", r"\1", result["console"]).split()
    assert (" ".join(words), result["end"]) == (expected, "semihosting exit")


AT = "ldr r0, =0x20000102\\n"
OFF = "ldr r0, =0xE000ED88\\n movs r1, #0\\n str r1, [r0]\\n dsb\\n isb\\n "
EVEN, POP = "ldr r0, =0x08000100\\n ", "push {r0}\\n "
FAULTS = {  # assembly that main calls, words of the fault
    **{AT + text: f"words at {address}" for text, address in {
        "ldrd r2, r3, [r0]": "0x20000102", "strd r2, r3, [r0, #4]": "0x20000106", "ldm r0, {r2, r3}": "0x20000102",
        "stmdb r0!, {r2, r3}": "0x2000010", "vldr s0, [r0]": "0x20000102", "vstr s0, [r0, #8]": "0x2000010a",
        "vldm r0, {s0, s1}": "0x20000102", "cmp r0, r0\\n it eq\\n ldrdeq r2, r3, [r0]": "0x20000102"}.items()},
    AT + "ldrex r1, [r0]": "exclusive access",
    **dict.fromkeys(
        [EVEN + "bx r0", EVEN + "blx r0", EVEN + POP + "pop {pc}", EVEN + POP + "ldr pc, [sp]",
         "ldr r1, =0x08000100\\n push {r0, r1}\\n mov r2, sp\\n ldm r2, {r0, pc}"], "branch target 0x08000100 is even"),
    **dict.fromkeys([OFF + "vmov s0, r1", OFF + "vpush {s0, s1}", OFF + "vmrs r1, fpscr"], "while its unit is off"),
}  # fmt: skip
FINE = (
    "ldr r0, =0x20000101\\n ldr r1, [r0]\\n strh r1, [r0, #2]",  # words anywhere
    "ldr r0, =0x20000104\\n ldrd r2, r3, [r0]\\n strd r2, r3, [r0, #4]\\n vldr s0, [r0]",  # doubles at multiples of 4
    "ldr r0, =0x20000101\\n cmp r0, r0\\n it ne\\n ldrdne r2, r3, [r0]",
    "adr r0, 1f\\n mov pc, r0\\n .balign 4\\n 1: nop",  # mov to an even address
)


@pytest.mark.parametrize("cpu", BOARDS)
def test_what_faults_on_a_board_faults_here(cpu: str, tmp_path: Path) -> None:
    """All in one program, in which a word of flash says which."""
    texts, mark = FAULTS | dict.fromkeys(FINE, "main returned"), 0x7EA51234
    naked = '__attribute__((naked)) void case{}(void) {{ __asm__ volatile("{}\\n bx lr\\n .ltorg"); }}\n'
    body = "".join(naked.format(i, text) for i, text in enumerate(texts))
    table = f"void (*const cases[])(void) = {{{', '.join(f'case{i}' for i in range(len(texts)))}}};"
    source = f"{body}volatile const uint32_t which = {mark};\n{table}\nint main(void) {{ cases[which](); return 0; }}"
    program = build(tmp_path, source, cpu=cpu)
    for i, (text, words) in enumerate(texts.items()):
        one = tmp_path / "one.elf"
        one.write_bytes(program.read_bytes().replace(mark.to_bytes(4, "little"), i.to_bytes(4, "little")))
        end = Machine(find_board(BOARDS[cpu]), one).run(100_000)
        assert end is not None and words in end.text and (end.reason == "fault") == (text in FAULTS), (text, end)
        assert text in FINE or f"case{i}" in end.text


def test_vectors_are_odd(tmp_path: Path) -> None:
    """An even reset vector, an even vector of an interrupt, a frame without the Thumb bit, a table where no memory is."""
    source = f"int main(void) {{ {TICK} for (;;) {{ }} }}"
    no_thumb = f"""__attribute__((naked)) void tick(void) {{ __asm__("movs r0, #0\\n str r0, [sp, #28]\\n bx lr"); }} {source}"""
    nowhere = f"int main(void) {{ REG(0xE000ED08) = 0x70000000; {TICK} for (;;) {{ }} }}"
    elf = build(tmp_path, source)
    words = {build(tmp_path, no_thumb): "bit 24 of xPSR clear", build(tmp_path, nowhere): "where there is no memory"}
    for name, vector in (("reset", "the reset vector"), ("tick", "the vector of exception 15")):
        odd, even = load_image(elf, F469.cpu).symbols[name] | 1, tmp_path / f"{name}.elf"
        even.write_bytes(elf.read_bytes().replace(odd.to_bytes(4, "little"), (odd - 1).to_bytes(4, "little"), 1))
        words[even] = f"{vector} {odd - 1:#010x} is even"
    for program, said in words.items():
        assert said in simulate(program, F469, max_instructions=100_000)["end"]


def test_the_console_interrupts(tmp_path: Path) -> None:
    start = """volatile int n; void received(void) { n++; REG(0x40004804) = (REG(0x40004804) & 255) + 1; }
        __attribute__((section(".isr_vector"), used)) void (*const more[64])(void) = {[39] = received};
        int main(void) { REG(0xE000ED08) = (uint32_t)more - 64; REG(0x4000480C) = 0x202C; REG(0xE000E104) = 1 << 7;
         while (n < 4) __asm__("wfi"); leave(n); }"""
    machine = Machine(F469, build(tmp_path, start))
    assert machine.run(until_idle=True) is None
    for letter, answer in ((b"H", b"I"), (b"AL", b"IBM")):
        machine.console.received += letter
        assert machine.run(until_idle=True) is None and machine.console.sent == answer
    machine.console.received += b"!"
    end = machine.run()
    assert end is not None and (end.reason, end.code) == ("exit", 4)


def test_cycles_and_stack_are_exact(tmp_path: Path) -> None:
    counter = """int main(void) { REG(0xE000EDFC) |= 1 << 24; REG(0xE0001000) |= 1; REG(0xE0001004) = 0;
        uint32_t a, b; volatile uint32_t *c = (volatile uint32_t *)0xE0001004;
        __asm__ volatile("nop\\n ldr %0, [%2]\\n nop\\n nop\\n nop\\n nop\\n nop\\n ldr %1, [%2]" : "=&r"(a), "=&r"(b) : "r"(c));
        number(b - a); leave(0); }"""
    assert int(simulate(build(tmp_path, counter), F469)["console"]) == 7  # two of the first load, five
    source = """__attribute__((naked)) int leaf(void)
        { __asm__("push {r4-r7, lr}\\n sub sp, #100\\n add sp, #100\\n pop {r4-r7, pc}"); }
        __attribute__((naked)) int main(void) { __asm__("push {r3, lr}\\n bl leaf\\n bl leaf\\n pop {r3, pc}"); }"""
    result = simulate(build(tmp_path, source), F469)
    functions = {entry["name"]: entry for entry in result["functions"]}
    assert result["stack_bytes"] == 8 + 8 + 20 + 100  # reset() pushes two registers
    assert functions["leaf"]["calls"] == 2 and functions["leaf"]["instructions"] == 8 and functions["main"]["instructions"] == 4
    sums = {key: sum(entry[key] for entry in result["functions"]) for key in ("instructions", "cycles")}
    assert sums == {key: result[key] for key in sums} and result["cycles"] == result["cycles_core"] + result["cycles_memory"]


LOOP = """int8_t x[512], y[512]; volatile int sink;
int main(void) { int s = 0; for (int i = 0; i < 512; i++) { x[i] = i * 7; y[i] = i * 13; }
 for (int k = 0; k < REPEATS; k++) for (int i = 0; i < 512; i++) s += (i & 3) ? x[i] * y[511 - i] : s >> 1;
 sink = s; number(s); leave(0); }"""


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is missing")
def test_instructions_equal_qemu(tmp_path: Path) -> None:
    elf = build(tmp_path, LOOP, "-DREPEATS=20")
    result, second = simulate(elf, F469), count_in_qemu(elf, F469)
    assert second == (result["instructions"], result["console"])


def test_without_a_c_compiler_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elf = build(tmp_path, "int main(void) { return 0; }")
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "gcc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "gcc").chmod(0o755)
    for path, words in (("/nowhere", "no C compiler is there"), (str(tmp_path), "gcc could not compile hooks.c")):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(MissingTool, match=f"{words}.*run: sudo apt-get install"):
            Machine(F469, elf)


def test_a_run_can_be_cut_into_pieces(tmp_path: Path) -> None:
    elf = build(tmp_path, LOOP, "-DREPEATS=20")
    whole, machine = simulate(elf, F469), Machine(F469, elf)
    while machine.run(1000) is None:
        pass
    assert machine.result() == whole
    assert simulate(elf, F469, max_instructions=1000)["exit"] == 3


def test_memory_costs_what_the_board_says(tmp_path: Path) -> None:
    """The caches of an L4 are on at reset; a table that is read once costs a stall a line."""
    l4 = """int main(void) { REG(0x40022000) = (REG(0x40022000) & ~15u) | 5; number(REG(0x40022000));
        for (volatile int i = 0; i < 5000; i++) { } leave(0); }"""
    result = simulate(build(tmp_path, l4), find_board("nucleo_l4r5zi"))
    assert int(result["console"]) == 0x605 and result["cycles_memory"] < 1000
    table = """const volatile uint32_t table[4096] = {1};
        int main(void) { uint32_t s = 0; for (int i = 0; i < 4096; i++) s += table[i]; number(s); leave(0); }"""
    elf = build(tmp_path, table)

    def stalls(**timing: int) -> int:
        return int(simulate(elf, replace(F469, flash_timing=replace(F469.flash_timing, **timing)))["cycles_memory"])

    lines = 4096 * 4 // F469.flash_timing.line_bytes
    assert (
        lines * 5 <= stalls() <= lines * 5 + 200 and stalls() < stalls(code_lines=0, data_lines=0) and stalls(wait_states=0) == 0
    )
    with pytest.raises(ValueError, match="power of two"):
        stalls(line_bytes=12)


def test_code_over_the_system_bus_costs_a_cycle_a_word(tmp_path: Path) -> None:
    """In a loop of ten 32-bit instructions; from flash, in whose cache it stays, they cost what the core takes."""
    source = """__attribute__((section("SECTION"), naked, aligned(8))) void loop(int n) { __asm__(
        "1: .rept 8\\n add.w r1, r1, r1\\n .endr\\n subs.w r0, r0, #1\\n bne.w 1b\\n bx lr"); }
        int main(void) { void (*volatile f)(int) = loop; f(1000); leave(0); }"""
    results = [simulate(build(tmp_path, source.replace("SECTION", name)), F469) for name in (".text.loop", ".ramcode")]
    flash, ram = ({entry["name"]: entry["cycles"] for entry in one["functions"]}["loop"] for one in results)
    assert 10_001 - 20 <= ram - flash <= 10_001  # but for the lines of flash that are fetched once
    assert results[1]["cycles_data"] <= results[1]["cycles_memory"]


def test_a_serial_flash_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A table that is read forwards costs `next_cycles` a line, one read backwards or with pauses a whole command each."""
    serial = replace(
        F469.flash_timing, line_bytes=8, code_lines=512, data_lines=64, prefetch=False, miss_cycles=100, next_cycles=40
    )
    lines = 1024 * 4 // serial.line_bytes
    for index, pause, cycles in (("i", "", 40), ("1023 - i", "", 100), ("i", "for (volatile int k = 0; k < 20; k++) { }", 100)):
        source = f"""const uint32_t table[1024] = {{1}}; const volatile uint32_t *const t = table; int main(void) {{
            uint32_t s = 0; for (int i = 0; i < 1024; i++) {{ s += t[{index}]; {pause} }} number(s); leave(0); }}"""
        lost = simulate(build(tmp_path, source), replace(F469, flash_timing=serial))["cycles_memory"]
        assert cycles * lines <= lost <= cycles * lines + 4000


UARTS = {  # a board; its registers to send and to receive; how its program sees that nothing has come
    "nrf52840_dk": (0x4000251C, 0x40002518, "REG(0x40002108) == 0"),
    "rpi_pico2": (0x40070000, 0x40070000, "REG(0x40070018) & 16"),
    "nucleo_h743zi": (0x40004828, 0x40004824, "!(REG(0x4000481C) & 32)"),
}  # fmt: skip


@pytest.mark.parametrize("name", UARTS)
def test_consoles_of_all_kinds(name: str, tmp_path: Path) -> None:
    board, (send, receive, empty) = find_board(name), UARTS[name]
    echo = f"for (;;) {{ while ({empty}) {{ }} REG({send}) = REG({receive}) + 1; }}"
    elf = build(
        tmp_path, f"int main(void) {{ REG({send}) = 65; {echo} }}", cpu=board.cpu, at=(board.flash.base, board.sram[0].base)
    )
    machine = Machine(board, elf)
    assert machine.run(until_idle=True) is None and machine.console.sent == b"A"
    machine.console.received += b"HAL"
    assert machine.run(until_idle=True) is None and machine.console.sent == b"AIBM"


def test_a_branch_is_predicted_alike_wherever_it_lies(tmp_path: Path) -> None:
    """The emulator ends a block at each KiB, so one branch may end several blocks; the core predicts the branch."""

    def cycles(skipped: int) -> int:
        loops = "movw r2, #5000; 1: movs r1, #3; 2: nop.w; nop.w; nop.w; nop.w; subs r1, #1; bne 2b; subs r2, #1; bne 1b"
        body = f'__asm__ volatile(".balign 1024; .skip {skipped}; {loops}" ::: "r1", "r2", "cc");'
        source = f"int main(void) {{ goto over; over: {body} leave(0); return 0; }}"
        return int(simulate(build(tmp_path, source, cpu="cortex-m7"), find_board("nucleo_f746zg"))["cycles"])

    assert abs(cycles(1024 - 14) - cycles(64)) < 5000


def test_an_endless_program_hears_ctrl_c_and_gives_its_counts(tmp_path: Path) -> None:
    running = []
    for body in ("volatile int n = 0; for (;;) n++;", "for (;;) { (void)REG(0x40010000); (void)REG(0x40010010); }"):
        arguments = ["", "simulate", str(build(tmp_path, f"int main(void) {{ {body} }}")), "--board", "disco_f469ni", "--json"]
        code = f"import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv = {arguments!r}"
        begin = "import tinyredux.cli.app, tinyredux.simulator.run; print('begins', flush=True)"
        command = [sys.executable, "-c", f"{code}; {begin}; runpy.run_module('tinyredux', run_name='__main__')"]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    assert [process.stdout.readline() for process in running if process.stdout] == ["begins\n"] * 2
    time.sleep(2)
    for process in running:
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
        result = json.loads(out)
        assert (process.returncode, result["reason"], result["exit"], errors) == (130, "interrupted", 130, "")
        assert result["instructions"] > 1000 and "main" in {entry["name"] for entry in result["functions"]}
