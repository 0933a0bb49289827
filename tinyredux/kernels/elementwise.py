"""Sum and product of two maps, ReLU, and functions by a table: four values in a word, the last four of a length that is no
multiple of four twice. A product with a value for each channel goes pixel by pixel.

The sum, doubled as `requantize` wants it, is 2 * (A + B), where A = round(round((a - zero) * 2^20 * multiplier) >> right) and
B alike. A factor that is a power of two, as the larger scale's always is, makes A a shift.

Range: |a - zero| <= 255, so |A| < 2^27 and the doubled sum stays below 2^29; a doubled product stays below 2^17.
"""

from __future__ import annotations

from collections.abc import Mapping

from tinyredux.graph import Add, Array, Graph, Lookup, Mul, Op, Relu
from tinyredux.int8 import (
    ADD_LEFT_SHIFT,
    AddParams,
    Clamp,
    Requantization,
    add_params,
    clamp_for,
    mul_params,
    quant_of,
    table_of,
)
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.requantize import applies, constants, kept_within, name, requantize
from tinyredux.kernels.asm.schedule import cycles_of

POWER_OF_TWO = 1 << 30  # the multiplier of a factor that is a power of two
RELU_WORDS = 4
LOOKUP_WORDS = 2
C_LOOP_CYCLES = 8  # of model.c, for each pixel


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the form of an addition, a product, a ReLU or a function of at least one word."""
    count = graph.tensors[op.output].elements
    if isinstance(op, Add) and count >= 4:
        params = add_params(graph, op)
        found = single_add_program(params, count // 4) if params.single else add_program(params, count // 4, op.subtract)
        return [_form("sub_words" if op.subtract else "add_words", [(found, 4)], count, core)] if found else []
    if isinstance(op, Mul):
        return _mul_forms(graph, op, core)
    if isinstance(op, Relu) and count >= 4:
        clamp, (times, left) = clamp_for(graph, op), divmod(count, 4 * RELU_WORDS)
        many, one = relu_program(clamp, RELU_WORDS, times), relu_program(clamp, 1, max(1, left // 4))
        return [_form("relu_words", [(many, 4 * RELU_WORDS), (one, 4)], count, core)]
    if isinstance(op, Lookup) and count >= 4:
        times, left = divmod(count, 4 * LOOKUP_WORDS)
        programs = [(lookup_program(words, many), 4 * words) for words, many in ((LOOKUP_WORDS, times), (1, max(1, left // 4)))]
        return [_form("lookup_words", programs, count, core, {"table": table_of(graph, op)})]
    return []


def _form(
    name: str, programs: list[tuple[Function, int]], count: int, core: str, arrays: Mapping[str, Array] | None = None
) -> Form:
    """Returns the form of functions that take some values at a time, each where those before have left off, and the arrays."""
    calls, done, cycles = dict[tuple[int, int], Function](), 0, 0.0  # (first value, how often)
    for program, size in programs:
        if times := (count - done) // size:
            calls[done, times] = program
            cycles += cycles_of(program, core)
            done += times * size
    if done < count:
        calls[count - 4, 1] = programs[-1][0]

    def call(places: Places) -> str:
        more = "".join(f", {array}" for array in places.arrays.values())
        return "\n".join(
            f"{function.name}({', '.join(f'{place} + {first}' for place in (places.out, *places.inputs))}{more}, {times});"
            for (first, times), function in calls.items()
        )

    used = tuple(program for program, _ in programs if program in calls.values())
    return Form(name, round(cycles), 0, used, call, arrays or {})


def _mul_forms(graph: Graph, op: Mul, core: str) -> list[Form]:
    """Returns the form of a product of two maps, or of a map with a value for each channel; none for a value for each place, for
    a factor that is no right shift, for rows of less than a word."""
    (height, width, channels), other = (graph.tensors[name].shape for name in op.inputs)
    params, pixels = mul_params(graph, op), height * width
    count = channels if (spread := other != (height, width, channels)) else pixels * channels
    if not applies(params) or count < 4 or other[2] != channels:
        return []
    zero_point = quant_of(graph.tensors[op.inputs[1]]).zero_point
    program = mul_program(params, zero_point, count // 4)
    whole = _form("mul_words", [(program, 4)], count, core)
    if not spread:
        return [whole]

    def call(places: Places) -> str:
        to, source = (f"({place} + i * {channels})" for place in (places.out, places.inputs[0]))
        body = whole.call(Places(to, (source, places.inputs[1]), "0", {})).replace("\n", "\n    ")
        return f"for (int32_t i = 0; i < {pixels}; i++) {{\n    {body}\n}}"

    last = cycles_of(mul_program(params, zero_point, 1), core) + C_LOOP_CYCLES if channels % 4 else 0
    return [Form("mul_pixels", round(pixels * (whole.cycles + last + C_LOOP_CYCLES)), 0, whole.functions, call)]


def mul_program(params: Requantization, other_zero_point: int, words: int) -> Function:
    """Returns the function of a product: bytes 0 and 2 of a word, and 1 and 3, widened to halves of a register."""
    ((multiplier, right),) = constants(params).tolist()
    zero_points = {"a": params.input_zero_point, "b": other_zero_point}
    numbers = f"{multiplier:x}_{right}_{'_'.join(f'{value & 255:02x}' for value in zero_points.values())}"
    p = Function(
        f"tr_mul_{numbers}_{name(params.output_zero_point, params.clamp)}",
        ("int8_t *out", "const int8_t *a", "const int8_t *b", "int32_t words"), "Products of two maps, four values at a time.",
    )  # fmt: skip
    p.new("minus_zero_a", "minus_zero_b", "multiplier", "zero", "even_a", "odd_a", "even_b", "odd_b", "x", "y")
    for source, value in zero_points.items():
        p.constant(f"minus_zero_{source}", (-value & 0xFFFF) * 0x10001)
    p.constant("multiplier", multiplier)
    p.constant("zero", 0)
    with p.loop("words", times=words):
        for source in zero_points:
            p.ldr_post(f"odd_{source}", source, 4)
        for source in zero_points:
            p.sxtab16(f"even_{source}", f"minus_zero_{source}", f"odd_{source}")
            p.sxtab16_ror8(f"odd_{source}", f"minus_zero_{source}", f"odd_{source}")
        for product in (p.smlabb, p.smlatt):
            for x, half in (("x", "even"), ("y", "odd")):
                product(x, f"{half}_a", f"{half}_b", "zero")
            for x in ("x", "y"):
                p.lsl(x, x, 1)
                requantize(p, x, "multiplier", right, params.output_zero_point, params.clamp)
                p.strb_post(x, "out", 1)
    return p


def add_program(params: AddParams, words: int, subtract: bool = False) -> Function | None:
    """Returns the function of an addition or a subtraction, or None where the output's factor is no right shift."""
    if not 1 <= -params.output_shift <= 31:
        return None
    numbers = [*params.zero_points, *params.multipliers, *params.shifts, params.output_zero_point]
    numbers += [params.output_multiplier, params.output_shift, params.clamp.low, params.clamp.high]
    rights = [-shift for shift in params.shifts]
    name = ("tr_sub_" if subtract else "tr_add_") + "_".join(f"{value & 0xFFFFFFFF:x}" for value in numbers)
    arguments = ("int8_t *out", "const int8_t *a", "const int8_t *b", "int32_t words")
    p = Function(name, arguments, f"{'Differences' if subtract else 'Sums'} of two maps, four values at a time.")
    for source, zero_point, multiplier, right in zip("ab", params.zero_points, params.multipliers, rights, strict=True):
        p.new(f"minus_zero_{source}")
        p.constant(f"minus_zero_{source}", -zero_point & 0xFFFFFFFF)
        if not _is_shift(multiplier, right):
            p.new(f"multiplier_{source}")
            p.constant(f"multiplier_{source}", multiplier)
    p.new("out_multiplier", "word_a", "word_b", "x", "y")
    turns = [("x", "y")] * 4
    if p.free_count() >= 2:  # a core that issues two at once computes two sums at once
        p.new("u", "v")
        turns = [("x", "y"), ("u", "v")] * 2
    p.constant("out_multiplier", params.output_multiplier)
    with p.loop("words", times=words):
        p.ldr_post("word_a", "a", 4)
        p.ldr_post("word_b", "b", 4)
        for lane, (x, y) in enumerate(turns):
            _doubled_sum(p, x, y, lane, params, subtract)
            requantize(p, x, "out_multiplier", -params.output_shift, params.output_zero_point, params.clamp)
            p.strb_post(x, "out", 1)
    return p


def single_add_program(params: AddParams, words: int) -> Function:
    """Returns the function of a sum or difference that is rounded once: two products and a shift for each value."""
    right, zero_point, clamp = -params.output_shift, params.output_zero_point, params.clamp
    start = (1 << (right - 1)) - sum(zero * factor for zero, factor in zip(params.zero_points, params.multipliers, strict=True))
    numbers = [start, *params.multipliers, right, zero_point, clamp.low, clamp.high]
    name = "tr_add_once_" + "_".join(f"{value & 0xFFFFFFFF:x}" for value in numbers)
    p = Function(
        name, ("int8_t *out", "const int8_t *a", "const int8_t *b", "int32_t words"), "Sums of two maps, four at a time."
    )
    p.new("start", "multiplier_a", "multiplier_b", "word_a", "word_b", "x", "y")
    for register, value in zip(("start", "multiplier_a", "multiplier_b"), (start, *params.multipliers), strict=True):
        p.constant(register, value & 0xFFFFFFFF)
    with p.loop("words", times=words):
        p.ldr_post("word_a", "a", 4)
        p.ldr_post("word_b", "b", 4)
        for end in ("", "_ror8", "_ror16", "_ror24"):
            for register, source in (("x", "a"), ("y", "b")):
                getattr(p, f"sxtb{end}")(register, f"word_{source}")
            p.mla("x", "x", "multiplier_a", "start")
            p.mla("x", "y", "multiplier_b", "x")
            p.asr("x", "x", right)
            kept_within(p, "x", zero_point, clamp)
            p.strb_post("x", "out", 1)
    return p


def _doubled_sum(p: Function, x: str, y: str, lane: int, params: AddParams, subtract: bool) -> None:
    """Sets `x`, by way of `y`, to 2 * (A + B), or 2 * (A - B), for one byte of each source's word.

    A term that is a shift is shifted where it is added, and the carry of the other's rounding is added with it.
    """
    shifts = [ADD_LEFT_SHIFT - 1 + each for each in params.shifts]  # of A and B, where they are shifts
    plain = [_is_shift(multiplier, -shift) for multiplier, shift in zip(params.multipliers, params.shifts, strict=True)]
    for to, source in ((x, "a"), (y, "b")):
        getattr(p, ("sxtab", "sxtab_ror8", "sxtab_ror16", "sxtab_ror24")[lane])(to, f"minus_zero_{source}", f"word_{source}")
    if all(plain):
        if subtract:
            p.lsl(x, x, shifts[0] + 1)
            p.sub(x, x, y, _left(shifts[1] + 1))
            return
        more, less = (x, y) if shifts[0] > shifts[1] else (y, x)
        p.add(x, less, more, _left(max(shifts) - min(shifts)))
        p.lsl(x, x, min(shifts) + 1)
        return
    if not subtract and any(plain) and all(params.multipliers):
        scaled, other = (y, 0) if plain[0] else (x, 1)
        _term(p, scaled, "ba"[other], -params.shifts[1 - other])
        p.adc(x, scaled, (x, y)[other], _left(shifts[other]))
        p.lsl(x, x, 1)
        return
    for to, source, i in ((x, "a", 0), (y, "b", 1)):
        if plain[i]:
            p.lsl(to, to, shifts[i] + 1)
        elif params.multipliers[i] == 0:
            p.mov(to, 0)
        else:
            _term(p, to, source, -params.shifts[i])
            p.adc(to, to, 0)
            p.lsl(to, to, 1)
    getattr(p, "sub" if subtract else "add")(x, x, y)


def _left(places: int) -> str:
    """Returns the shift of an operand to the left, none by 0 places."""
    return f"lsl {places}" if places else ""


def _term(p: Function, x: str, source: str, right: int) -> None:
    """Turns `x`, a value less its zero point, into A less the carry that it leaves."""
    p.lsl(x, x, ADD_LEFT_SHIFT + 1)
    p.smmulr(x, x, f"multiplier_{source}")
    p.add(x, x, x, "asr 31")
    p.asrs(x, x, right)


def _is_shift(multiplier: int, right: int) -> bool:
    """Returns whether the factor multiplier * 2^(-31 - right) takes whole numbers times 2^20 to whole numbers."""
    return multiplier == POWER_OF_TWO and right < ADD_LEFT_SHIFT


def relu_program(clamp: Clamp, words: int, times: int) -> Function:
    """Returns the function that clamps `words` words at a time."""
    name = f"tr_relu{words}_{clamp.low + 128:02x}{clamp.high + 128:02x}"
    p = Function(name, ("int8_t *out", "const int8_t *in", "int32_t times"), f"ReLU, {4 * words} values at a time.")
    limits, names = limits_of(clamp), [f"word_{i}" for i in range(words)]
    for limit, value in limits.items():
        p.new(limit)
        p.constant(limit, (value & 255) * 0x01010101)
    p.new("difference", *names)
    with p.loop("times", times=times):
        p.load("in", 0, *names)
        p.add("in", "in", 4 * words)
        for word in names:
            for limit in limits:
                keep_limit(p, word, limit, larger=limit == "low")
        p.store("out", 0, *names)
        p.add("out", "out", 4 * words)
    return p


def lookup_program(words: int, times: int) -> Function:
    """Returns the function that looks up `words` words at a time: their bytes are the numbers of the results."""
    about = f"A function by its table, {4 * words} values at a time."
    p = Function(f"tr_lookup{words}", ("int8_t *out", "const int8_t *in", "const int8_t *table", "int32_t times"), about)
    names = [f"word_{i}" for i in range(words)]
    p.new("a", "b", "c", *names)
    with p.loop("times", times=times):
        p.load("in", 0, *names)
        p.add("in", "in", 4 * words)
        for word in names:
            p.uxtb("a", word)
            p.ubfx("b", word, 8, 8)
            p.ubfx("c", word, 16, 8)
            p.lsr(word, word, 24)
            for lane in ("a", "b", "c", word):
                p.ldrb_at(lane, "table", lane)
            p.bfi("a", "b", 8, 8)
            p.bfi("a", "c", 16, 8)
            p.bfi("a", word, 24, 8)
            p.str_post("a", "out", 4)
    return p


def limits_of(clamp: Clamp) -> dict[str, int]:
    """Returns those of the limits `low` and `high` that an int8 number does not keep by itself."""
    return {name: value for name, value, end in (("low", clamp.low, -128), ("high", clamp.high, 127)) if value != end}


def keep_limit(p: Function, to: str, other: str, larger: bool) -> None:
    """Keeps the larger, or the smaller, of two bytes in each lane; by way of `difference`."""
    p.ssub8("difference", to, other)
    p.sel(to, *((to, other) if larger else (other, to)))
