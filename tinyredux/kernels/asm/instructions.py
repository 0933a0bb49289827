"""The machine instructions of the templates: how each is written in assembly, and the C statement of equal effect.

In a template {0}, {1} ... are the operands. `roles` has one letter per operand:

    w  register written          r  register read               m  register read and written
    a  register of an address    b  the same, and written back  s  register read, or a number
    o  number added to an address                               n  number

A trailing group {shift} takes a shifted last operand, such as p.add("d", "a", "b", "lsl 2"). Flags: C carry, G the four GE bits.
Every asm template is one 32-bit instruction (`.w`), or several that fill whole words, so code stays word aligned.

Another instruction is a line here and a function in firmware/include/twin.h.

Source: Armv7-M Architecture Reference Manual, chapter A7, for what each instruction does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Op:
    """One kind of instruction. `kind` is that of timing.Instruction; `sets` and `uses` name flags."""

    asm: str
    c: str
    roles: str
    kind: str = "alu"
    sets: str = ""
    uses: str = ""


SIGNS = {"add": "+", "sub": "-", "and_": "&", "orr": "|", "eor": "^"}
PLAIN = {
    "mov": Op("mov.w {0}, {1}", "{0} = {1};", "ws"),
    "movw": Op("movw {0}, {1}", "{0} = {1};", "ws"),
    "movt": Op("movt {0}, {1}", "{0} = ({0} & 0xffffu) | ({1} << 16);", "ms"),
    "vmov": Op("vmov {0}, {1}", "{0} = {1};", "wr", "float"),
    # between floating-point registers, which hold the bits of a number of either kind
    "vcvt": Op("vcvt.f32.s32 {0}, {1}", "{0} = tw_vcvt({1});", "wr", "float"),
    "vmul": Op("vmul.f32 {0}, {1}, {2}", "{0} = tw_vmul({1}, {2});", "wrr", "float"),
    "vcvtr": Op("vcvtr.s32.f32 {0}, {1}", "{0} = tw_vcvtr({1});", "wr", "float"),
    "bic": Op("bic.w {0}, {1}, {2}{shift}", "{0} = {1} & ~{2};", "wrs"),
    "lsl": Op("lsl.w {0}, {1}, {2}", "{0} = tw_lsl({1}, {2});", "wrs"),
    "lsr": Op("lsr.w {0}, {1}, {2}", "{0} = tw_lsr({1}, {2});", "wrs"),
    "asr": Op("asr.w {0}, {1}, {2}", "{0} = tw_asr({1}, {2});", "wrs"),
    "asrs": Op("asrs.w {0}, {1}, {2}", "{0} = tw_asrs({1}, {2}, &carry);", "wrs", sets="C"),
    "adc": Op("adc.w {0}, {1}, {2}{shift}", "{0} = {1} + {2} + carry;", "wrs", uses="C"),
    # {0} = max({0}, {1}) and min: CMP and IT are 16 bits each, the move 32
    "at_least": Op("cmp {0}, {1}\n    it lt\n    movlt.w {0}, {1}", "{0} = tw_max({0}, {1});", "mr", sets="C"),
    "at_most": Op("cmp {0}, {1}\n    it gt\n    movgt.w {0}, {1}", "{0} = tw_min({0}, {1});", "mr", sets="C"),
    "mla": Op("mla {0}, {1}, {2}, {3}", "{0} = {1} * {2} + {3};", "wrrr", "mac"),
    "mul": Op("mul {0}, {1}, {2}", "{0} = {1} * {2};", "wrr", "mul"),
    "smlal": Op("smlal {0}, {1}, {2}, {3}", "tw_smlal(&{0}, &{1}, {2}, {3});", "mmrr", "mac"),
    "smuad": Op("smuad {0}, {1}, {2}", "{0} = tw_smlad({1}, {2}, 0);", "wrr", "mul"),
    "smmulr": Op("smmulr {0}, {1}, {2}", "{0} = tw_smmulr({1}, {2});", "wrr", "mul"),
    "pkhbt": Op("pkhbt {0}, {1}, {2}{shift}", "{0} = ({1} & 0xffffu) | ({2} & 0xffff0000u);", "wrr", "dsp"),
    "pkhtb": Op("pkhtb {0}, {1}, {2}{shift}", "{0} = ({1} & 0xffff0000u) | ({2} & 0xffffu);", "wrr", "dsp"),
    "ssat": Op("ssat {0}, {1}, {2}{shift}", "{0} = tw_ssat({1}, {2});", "wnr", "dsp"),
    "ubfx": Op("ubfx {0}, {1}, {2}, {3}", "{0} = tw_ubfx({1}, {2}, {3});", "wrnn", "dsp"),
    "bfi": Op("bfi {0}, {1}, {2}, {3}", "{0} = tw_bfi({0}, {1}, {2}, {3});", "mrnn", "dsp"),
    "ldrb_at": Op("ldrb.w {0}, [{1}, {2}]", "{0} = tw_ldrb({1} + {2});", "waa", "load"),
    "ldrh_at": Op("ldrh.w {0}, [{1}, {2}, lsl #1]", "{0} = tw_ldrh({1} + 2 * {2});", "war", "load"),
    "qadd16": Op("qadd16 {0}, {1}, {2}", "{0} = tw_qadd16({1}, {2});", "wrr", "dsp"),
    "qsub16": Op("qsub16 {0}, {1}, {2}", "{0} = tw_qsub16({1}, {2});", "wrr", "dsp"),
    "ssub8": Op("ssub8 {0}, {1}, {2}", "{0} = tw_ssub8({1}, {2}, &ge);", "wrr", "dsp", sets="G"),
    "sel": Op("sel {0}, {1}, {2}", "{0} = tw_sel({1}, {2}, ge);", "wrr", "dsp", uses="G"),
}


def _families() -> Iterator[tuple[str, Op]]:
    """Yields the instructions that differ in a name, a sign or a rotation. `_post` and `_pre` move the address of a load or store
    behind it or before it; `sxtb_ror8` and so on rotate the source right first."""
    for name, sign in SIGNS.items():
        yield name, Op(f"{name.rstrip('_')}.w {{0}}, {{1}}, {{2}}{{shift}}", f"{{0}} = {{1}} {sign} {{2}};", "wrs")
    for name in ("smlad", "smlabb", "smlabt", "smlatb", "smlatt"):
        yield name, Op(f"{name} {{0}}, {{1}}, {{2}}, {{3}}", f"{{0}} = tw_{name}({{1}}, {{2}}, {{3}});", "wrrr", "mac")
    for name in ("ldr", "ldrb", "ldrsb", "ldrh", "ldrsh", "str", "strb", "strh"):
        load, move = name.startswith("ld"), "{1} = {1} + {2};"
        role, kind = ("w", "load") if load else ("r", "store")
        head, tail = (f"{{0}} = tw_{name}(", ");") if load else (f"tw_{name}(", ", {0});")
        yield name, Op(f"{name}.w {{0}}, [{{1}}, {{2}}]", f"{head}{{1}} + {{2}}{tail}", f"{role}ao", kind)
        yield f"{name}_post", Op(f"{name}.w {{0}}, [{{1}}], {{2}}", f"{head}{{1}}{tail} {move}", f"{role}bo", kind)
        yield f"{name}_pre", Op(f"{name}.w {{0}}, [{{1}}, {{2}}]!", f"{move} {head}{{1}}{tail}", f"{role}bo", kind)
    for rotation in (0, 8, 16, 24):
        end, asm = (f"_ror{rotation}", f", ror #{rotation}") if rotation else ("", "")
        for name in ("sxtb.w", "uxtb.w", "sxth.w", "uxth.w", "sxtb16", "uxtb16"):
            plain = name.removesuffix(".w")
            yield plain + end, Op(f"{name} {{0}}, {{1}}{asm}", f"{{0}} = tw_{plain}({{1}}, {rotation});", "wr", "dsp")
        for name in ("sxtab", "sxtab16"):
            c = f"{{0}} = tw_{name}({{1}}, {{2}}, {rotation});"
            yield name + end, Op(f"{name} {{0}}, {{1}}, {{2}}{asm}", c, "wrr", "dsp")


OPS: dict[str, Op] = PLAIN | dict(_families())
