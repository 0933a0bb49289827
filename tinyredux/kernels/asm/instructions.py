"""The machine instructions that a Program may use: how each is written in assembly, and the C statement of equal effect.

In a template {0}, {1} ... are the operands. `roles` has one letter per operand:

    w  register written          r  register read               m  register read and written
    a  register of an address    b  the same, and written back  s  register read, or a number
    o  number added to an address                               n  number

A trailing group {shift} takes a shifted last operand, such as p.add("d", "a", "b", "lsl 2"). Flags: C carry, G the four GE bits.
Every asm template is one 32-bit instruction (`.w`), or several that fill whole words, so code stays word aligned.

Source: Armv7-M Architecture Reference Manual, chapter A7, for what each instruction does.
"""

from __future__ import annotations

from dataclasses import dataclass

OFFSETS, WRITTEN_BACK, OF_TWO_WORDS = range(-255, 4096), range(-255, 256), range(-1020, 1021, 4)


@dataclass(frozen=True)
class Op:
    """One kind of instruction. `kind` is that of timing.Instruction; `sets` and `uses` name flags; `reach` holds the numbers that
    it can add to an address."""

    asm: str
    c: str
    roles: str
    kind: str = "alu"
    sets: str = ""
    uses: str = ""
    reach: range = OFFSETS


def _loads() -> dict[str, Op]:
    found = {}
    for name in ("ldr", "ldrb", "ldrsb", "ldrh", "ldrsh"):
        found[name] = Op(f"{name}.w {{0}}, [{{1}}, {{2}}]", f"{{0}} = tw_{name}({{1}} + {{2}});", "wao", "load")
        post = f"{{0}} = tw_{name}({{1}}); {{1}} = {{1}} + {{2}};"
        found[f"{name}_post"] = Op(f"{name}.w {{0}}, [{{1}}], {{2}}", post, "wbo", "load", reach=WRITTEN_BACK)
        pre = f"{{1}} = {{1}} + {{2}}; {{0}} = tw_{name}({{1}});"
        found[f"{name}_pre"] = Op(f"{name}.w {{0}}, [{{1}}, {{2}}]!", pre, "wbo", "load", reach=WRITTEN_BACK)
        at = f"{{0}} = tw_{name}({{1}} + ((uintptr_t){{2}} << {{3}}));"
        found[f"{name}_at"] = Op(f"{name}.w {{0}}, [{{1}}, {{2}}, lsl {{3}}]", at, "waan", "load")
    return found


def _stores() -> dict[str, Op]:
    found = {}
    for name in ("str", "strb", "strh"):
        found[name] = Op(f"{name}.w {{0}}, [{{1}}, {{2}}]", f"tw_{name}({{1}} + {{2}}, {{0}});", "rao", "store")
        post = f"tw_{name}({{1}}, {{0}}); {{1}} = {{1}} + {{2}};"
        found[f"{name}_post"] = Op(f"{name}.w {{0}}, [{{1}}], {{2}}", post, "rbo", "store", reach=WRITTEN_BACK)
        at = f"tw_{name}({{1}} + ((uintptr_t){{2}} << {{3}}), {{0}});"
        found[f"{name}_at"] = Op(f"{name}.w {{0}}, [{{1}}, {{2}}, lsl {{3}}]", at, "raan", "store")
    return found


def _arithmetic() -> dict[str, Op]:
    signs = (("add", "+"), ("sub", "-"), ("and_", "&"), ("orr", "|"), ("eor", "^"))
    found = {
        name: Op(f"{name.rstrip('_')}.w {{0}}, {{1}}, {{2}}{{shift}}", f"{{0}} = {{1}} {sign} {{2}};", "wrs")
        for name, sign in signs
    }
    found |= {
        "mov": Op("mov.w {0}, {1}", "{0} = {1};", "ws"),
        "movw": Op("movw {0}, {1}", "{0} = {1};", "ws"),
        "movt": Op("movt {0}, {1}", "{0} = ({0} & 0xffffu) | ({1} << 16);", "ms"),
        "mvn": Op("mvn.w {0}, {1}", "{0} = ~{1};", "ws"),
        "rsb": Op("rsb.w {0}, {1}, {2}{shift}", "{0} = {2} - {1};", "wrs"),
        "bic": Op("bic.w {0}, {1}, {2}{shift}", "{0} = {1} & ~{2};", "wrs"),
        "lsl": Op("lsl.w {0}, {1}, {2}", "{0} = tw_lsl({1}, {2});", "wrs"),
        "lsr": Op("lsr.w {0}, {1}, {2}", "{0} = tw_lsr({1}, {2});", "wrs"),
        "asr": Op("asr.w {0}, {1}, {2}", "{0} = tw_asr({1}, {2});", "wrs"),
        "adds": Op("adds.w {0}, {1}, {2}{shift}", "{0} = tw_adds({1}, {2}, &carry);", "wrs", sets="C"),
        "asrs": Op("asrs.w {0}, {1}, {2}", "{0} = tw_asrs({1}, {2}, &carry);", "wrs", sets="C"),
        "adc": Op("adc.w {0}, {1}, {2}{shift}", "{0} = {1} + {2} + carry;", "wrs", uses="C"),
        # {0} = max({0}, {1}) and min: CMP and IT are 16 bits each, the move 32
        "at_least": Op("cmp {0}, {1}\n    it lt\n    movlt.w {0}, {1}", "{0} = tw_max({0}, {1});", "mr", sets="C"),
        "at_most": Op("cmp {0}, {1}\n    it gt\n    movgt.w {0}, {1}", "{0} = tw_min({0}, {1});", "mr", sets="C"),
    }
    return found


def _multiplies() -> dict[str, Op]:
    found = {
        "mul": Op("mul {0}, {1}, {2}", "{0} = {1} * {2};", "wrr", "mul"),
        "mla": Op("mla {0}, {1}, {2}, {3}", "{0} = {3} + {1} * {2};", "wrrr", "mac"),
        "mls": Op("mls {0}, {1}, {2}, {3}", "{0} = {3} - {1} * {2};", "wrrr", "mac"),
        "smlal": Op("smlal {0}, {1}, {2}, {3}", "tw_smlal(&{0}, &{1}, {2}, {3});", "mmrr", "mac"),
        "smull": Op("smull {0}, {1}, {2}, {3}", "{0} = {1} = 0; tw_smlal(&{0}, &{1}, {2}, {3});", "wwrr", "mul"),
        "smmulr": Op("smmulr {0}, {1}, {2}", "{0} = tw_smmulr({1}, {2});", "wrr", "mul"),
        "smmul": Op("smmul {0}, {1}, {2}", "{0} = tw_smmul({1}, {2});", "wrr", "mul"),
    }
    for name in ("smlad", "smladx", "smlsd", "smlabb", "smlabt", "smlatb", "smlatt"):
        found[name] = Op(f"{name} {{0}}, {{1}}, {{2}}, {{3}}", f"{{0}} = tw_{name}({{1}}, {{2}}, {{3}});", "wrrr", "mac")
        if name != "smladx":
            short = name.replace("mlad", "muad").replace("mlsd", "musd").replace("mla", "mul")
            found[short] = Op(f"{short} {{0}}, {{1}}, {{2}}", f"{{0}} = tw_{name}({{1}}, {{2}}, 0);", "wrr", "mul")
    return found


def _fields() -> dict[str, Op]:
    """Bit fields and packed halves and bytes. `sxtb_ror8` and so on rotate the source right first."""
    found = {
        "pkhbt": Op("pkhbt {0}, {1}, {2}{shift}", "{0} = ({1} & 0xffffu) | ({2} & 0xffff0000u);", "wrr", "dsp"),
        "pkhtb": Op("pkhtb {0}, {1}, {2}{shift}", "{0} = ({1} & 0xffff0000u) | ({2} & 0xffffu);", "wrr", "dsp"),
        "ssat": Op("ssat {0}, {1}, {2}{shift}", "{0} = tw_ssat({1}, {2});", "wnr", "dsp"),
        "usat": Op("usat {0}, {1}, {2}{shift}", "{0} = tw_usat({1}, {2});", "wnr", "dsp"),
        "ubfx": Op("ubfx {0}, {1}, {2}, {3}", "{0} = tw_ubfx({1}, {2}, {3});", "wrnn", "dsp"),
        "sbfx": Op("sbfx {0}, {1}, {2}, {3}", "{0} = tw_sbfx({1}, {2}, {3});", "wrnn", "dsp"),
        "bfi": Op("bfi {0}, {1}, {2}, {3}", "{0} = tw_bfi({0}, {1}, {2}, {3});", "mrnn", "dsp"),
        "ssub8": Op("ssub8 {0}, {1}, {2}", "{0} = tw_ssub8({1}, {2}, &ge);", "wrr", "dsp", sets="G"),
        "usub8": Op("usub8 {0}, {1}, {2}", "{0} = tw_usub8({1}, {2}, &ge);", "wrr", "dsp", sets="G"),
        "sel": Op("sel {0}, {1}, {2}", "{0} = tw_sel({1}, {2}, ge);", "wrr", "dsp", uses="G"),
        "sadd16": Op("sadd16 {0}, {1}, {2}", "{0} = tw_sadd16({1}, {2}, &ge);", "wrr", "dsp", sets="G"),
        "ssub16": Op("ssub16 {0}, {1}, {2}", "{0} = tw_ssub16({1}, {2}, &ge);", "wrr", "dsp", sets="G"),
        "qadd16": Op("qadd16 {0}, {1}, {2}", "{0} = tw_qadd16({1}, {2});", "wrr", "dsp"),
        "ssat16": Op("ssat16 {0}, {1}, {2}", "{0} = tw_ssat16({1}, {2});", "wnr", "dsp"),
    }
    for rotation in (0, 8, 16, 24):
        end, asm = (f"_ror{rotation}", f", ror #{rotation}") if rotation else ("", "")
        for name in ("sxtb", "uxtb", "sxth", "uxth"):
            found[name + end] = Op(f"{name}.w {{0}}, {{1}}{asm}", f"{{0}} = tw_{name}({{1}}, {rotation});", "wr", "dsp")
        for name in ("sxtb16", "uxtb16"):
            found[name + end] = Op(f"{name} {{0}}, {{1}}{asm}", f"{{0}} = tw_{name}({{1}}, {rotation});", "wr", "dsp")
        for name in ("sxtab", "sxtah", "sxtab16"):
            c = f"{{0}} = tw_{name}({{1}}, {{2}}, {rotation});"
            found[name + end] = Op(f"{name} {{0}}, {{1}}, {{2}}{asm}", c, "wrr", "dsp")
    return found


OPS: dict[str, Op] = {
    **_loads(), **_stores(), **_arithmetic(), **_multiplies(), **_fields(),
    "ldrd": Op(
        "ldrd {0}, {1}, [{2}, {3}]", "{0} = tw_ldr({2} + {3}); {1} = tw_ldr({2} + {3} + 4);", "wwao", "load-many",
        reach=OF_TWO_WORDS,
    ),
    "strd": Op(
        "strd {0}, {1}, [{2}, {3}]", "tw_str({2} + {3}, {0}); tw_str({2} + {3} + 4, {1});", "rrao", "store-many",
        reach=OF_TWO_WORDS,
    ),
    "vmov": Op("vmov {0}, {1}", "{0} = {1};", "wr", "float"),
}  # fmt: skip
