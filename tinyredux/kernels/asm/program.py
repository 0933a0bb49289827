"""A kernel as a list of machine instructions over named registers, written once and printed twice.

A template makes a Program by calling one method per instruction (the table is in `instructions`); registers have names and
are given a place among r0..r12, lr when they are made. `print_assembly` writes the function for the boards, `print_c` the
same instructions as C statements, so that tests on a computer run the very same algorithm.

    p = Program("tr_sum", ("const int8_t *from", "int32_t *to", "int32_t n"))
    p.new("total", "x")
    p.mov("total", 0)
    with p.loop("n"):                      # n is counted down to 0; it must not be 0 at the start
        p.ldrsb_post("x", "from", 1)
        p.add("total", "total", "x")
    p.str("total", "to", 0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field

from tinyredux.kernels.asm.instructions import OPS, Op

CORE_REGISTERS = (*(f"r{i}" for i in range(13)), "lr")
FLOAT_REGISTERS = tuple(f"s{i}" for i in range(32))
CONDITIONS = {
    "eq": ("ne", "=="),
    "ne": ("eq", "!="),
    "lt": ("ge", "<"),
    "ge": ("lt", ">="),
    "gt": ("le", ">"),
    "le": ("gt", "<="),
}


@dataclass(frozen=True)
class Register:
    """A name and where it lies. `pointer`: the C variable is as wide as an address.

    `variable` names it in the C twin: one variable for each place that the name has had, so that the twin keeps as many values
    as the core does, in whatever order the instructions come.
    """

    name: str
    place: str
    pointer: bool = False
    variable: str = ""


Operand = Register | int


@dataclass(frozen=True)
class Instruction:
    """One instruction with its operands; `shift` is that of the last register operand, such as "lsl 2"."""

    name: str
    op: Op
    operands: tuple[Operand, ...]
    shift: str = ""


@dataclass(frozen=True)
class Comment:
    """A line for the reader of the generated code."""

    text: str


@dataclass
class Block:
    """Instructions under one head: a loop, which runs at least once, or a condition. `test` is (left, condition, right).

    kind "count": `left` is counted down to zero; "loop": again while the test holds; "if": once where the test holds.
    `times`: how often the body runs each time the block is met, on average; for predicting cycles only.
    """

    kind: str
    test: tuple[Register, str, Operand]
    body: list[Node] = field(default_factory=list)
    times: float = 1


Node = Instruction | Comment | Block


class Program:
    """One function under construction. Arguments are C declarations, at most four; a `*` makes a pointer."""

    def __init__(self, name: str, arguments: tuple[str, ...], about: str = "") -> None:
        """Starts a function `void name(arguments)`; `about` becomes the comment above it."""
        if len(arguments) > 4:
            raise ValueError(f"{name} has {len(arguments)} arguments, at most 4 fit into registers; pass a table instead")
        self.name, self.arguments, self.about = name, arguments, about
        self.body: list[Node] = []
        self.live: dict[str, Register] = {}
        self.variables: dict[str, list[Register]] = {}  # of each name, one for each place that it has had
        self.used: set[str] = set()
        self._blocks = [self.body]
        for text in arguments:
            self._allocate(text.split()[-1].lstrip("*"), CORE_REGISTERS, "*" in text)

    @property
    def declaration(self) -> str:
        """The C prototype, without a semicolon."""
        return f"void {self.name}({', '.join(self.arguments) or 'void'})"

    def with_body(self, body: list[Node]) -> Program:
        """Returns the same function with other instructions, over the same registers."""
        changed = copy(self)
        changed.body, changed._blocks = body, [body]
        return changed

    # Registers ----------------------------------------------------------------------------------------------------

    def new(self, *names: str) -> None:
        """Gives each name the lowest free core register, for a 32-bit value."""
        for name in names:
            self._allocate(name, CORE_REGISTERS, pointer=False)

    def new_pointer(self, *names: str) -> None:
        """Gives each name the lowest free core register, for an address."""
        for name in names:
            self._allocate(name, CORE_REGISTERS, pointer=True)

    def new_float(self, *names: str, pointer: bool = False) -> None:
        """Gives each name a floating-point register: a place to keep a core register in, by `vmov`, for one cycle."""
        for name in names:
            self._allocate(name, FLOAT_REGISTERS, pointer)

    def free(self, *names: str) -> None:
        """Gives the registers of these names back."""
        for name in names:
            self._find(name)
            del self.live[name]

    def free_count(self) -> int:
        """Returns how many core registers are free."""
        return len(CORE_REGISTERS) - sum(register.place in CORE_REGISTERS for register in self.live.values())

    def _allocate(self, name: str, places: tuple[str, ...], pointer: bool) -> None:
        taken = {register.place: register.name for register in self.live.values()}
        place = next((place for place in places if place not in taken), None)
        known = self.variables.setdefault(name, [])
        if name in self.live or not name.isidentifier() or any(register.pointer != pointer for register in known):
            raise ValueError(f"{self.name}: {name!r} is no new register name of its kind; choose another name")
        if place is None:
            raise ValueError(f"{self.name}: no register left for {name}; free one of {', '.join(taken.values())}")
        register = Register(name, place, pointer, f"r_{name}_{place}" if known else f"r_{name}")
        self.live[name] = next((before for before in known if before.place == place), register)
        known += [register] if self.live[name] is register else []
        self.used.add(place)

    def _find(self, name: str) -> Register:
        if name not in self.live:
            raise ValueError(f"{self.name}: {name!r} has no register now; there are {', '.join(self.live)}")
        return self.live[name]

    def _operand(self, value: str | int) -> Operand:
        return self._find(value) if isinstance(value, str) else value

    # Instructions -------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Returns the method that adds instruction `name` of the table, called with register names and numbers."""
        if name not in OPS:
            raise AttributeError(f"no instruction {name!r}; the table is tinyredux.kernels.asm.instructions.OPS")
        return lambda *operands: self._add(name, OPS[name], operands)

    def _add(self, name: str, op: Op, operands: tuple[str | int, ...]) -> None:
        shift = ""
        if "{shift}" in op.asm and len(operands) == len(op.roles) + 1:
            shift, operands = str(operands[-1]), operands[:-1]
        if len(operands) != len(op.roles):
            raise ValueError(f"{self.name}: {name} takes {len(op.roles)} operands ({op.roles}), found {operands}")
        found = tuple(self._operand(value) for value in operands)
        for role, value in zip(op.roles, found, strict=True):
            if isinstance(value, int) != (role in "no") and role != "s":
                raise ValueError(f"{self.name}: {name} takes {op.roles}, found {operands}")
        number = found[op.roles.index("o")] if "o" in op.roles else found[-1]
        if "o" in op.roles and number not in op.reach:
            self._add_far(name, op, operands)
        elif name in ("add", "sub") and isinstance(number, int) and len(parts := _addends(number)) > 1:
            to, source, _ = operands
            for part in parts:
                self._add(name, op, (to, source, part))
                source = to
        else:
            self._blocks[-1].append(Instruction(name, op, found, shift))

    def _add_far(self, name: str, op: Op, operands: tuple[str | int, ...]) -> None:
        """Adds a load or store with an offset that the instruction has no room for: the base moves there first, and back."""
        at, (plain, _, order) = op.roles.index("o"), name.partition("_")
        base, distance = operands[at - 1], operands[at]
        if base in operands[: at - 1] and (order or op.roles[0] == "r"):
            raise ValueError(f"{self.name}: {name} has no room for {distance}, and {base} is value and address at once")
        if order != "post":
            self.add(base, base, distance)
        self._add(plain, OPS[plain], (*operands[:at], 0))
        if order == "post":
            self.add(base, base, distance)
        elif not order and base not in operands[: at - 1]:
            self.sub(base, base, distance)

    def constant(self, name: str, value: int) -> None:
        """Loads any 32-bit number: one instruction where it has 16 bits, else two."""
        self.movw(name, value & 0xFFFF)
        if value & 0xFFFF0000:
            self.movt(name, value >> 16 & 0xFFFF)

    def advance(self, name: str, number: int) -> None:
        """Adds any number to a register, at most 4095 at a time: that is what an ADD holds."""
        while number:
            part = max(-4095, min(4095, number))
            self.add(name, name, part)
            number -= part

    def ldm(self, base: str, names: str, advance: bool = True) -> None:
        """Loads words into the registers of `names`, lowest register first; `advance` moves the base behind them."""
        self._many("ldm", base, names.split(), advance)

    def stm(self, base: str, names: str, advance: bool = True) -> None:
        """Stores the registers of `names`, lowest first; `advance` moves the base behind them."""
        self._many("stm", base, names.split(), advance)

    def _many(self, name: str, base: str, names: list[str], advance: bool) -> None:
        places = [CORE_REGISTERS.index(self._find(each).place) for each in names]
        if places != sorted(places):
            raise ValueError(f"{self.name}: {name} moves registers in ascending order, but {names} lie in {places}")
        numbered = [f"{{{i + 1}}}" for i in range(len(names))]
        asm = f"{name}ia.w {{0}}{'!' if advance else ''}, {{{{{', '.join(numbered)}}}}}"
        load = "{each} = tw_ldr({base} + {i});" if name == "ldm" else "tw_str({base} + {i}, {each});"
        c = " ".join(load.format(each=each, base="{0}", i=4 * i) for i, each in enumerate(numbered))
        c += f" {{0}} = {{0}} + {4 * len(names)};" if advance else ""
        roles = ("b" if advance else "a") + ("w" if name == "ldm" else "r") * len(names)
        self._add(name, Op(asm, c, roles, "load-many" if name == "ldm" else "store-many"), (base, *names))

    def comment(self, text: str) -> None:
        """Adds a line for the reader."""
        self._blocks[-1].append(Comment(text))

    # Blocks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, counter: str, times: float = 1) -> Iterator[None]:
        """Repeats the body `counter` times, at least once; leaves the counter 0.

        A counter in a floating-point register passes through a core register that must be free at the end of the body.
        """
        if self._find(counter).place in CORE_REGISTERS:
            with self._block("count", counter, "ne", 0, times):
                yield
            return
        with self._block("loop", counter, "ne", 0, times):
            yield
            self.new("counted")
            self.vmov("counted", counter)
            self.sub("counted", "counted", 1)
            self.vmov(counter, "counted")
            self.free("counted")

    @contextmanager
    def loop_while(self, left: str, condition: str, right: str | int, times: float = 1) -> Iterator[None]:
        """Runs the body, and again while `left condition right` holds at its end: signed values, or addresses by eq and ne.

        `left` may be a floating-point register if a core register is free at the end of the body.
        """
        with self._block("loop", left, condition, right, times):
            yield

    @contextmanager
    def when(self, left: str, condition: str, right: str | int, times: float = 1) -> Iterator[None]:
        """Runs the body where `left condition right` holds (eq ne lt ge gt le, signed)."""
        with self._block("if", left, condition, right, times):
            yield

    @contextmanager
    def _block(self, kind: str, left: str, condition: str, right: str | int, times: float) -> Iterator[None]:
        if condition not in CONDITIONS:
            raise ValueError(f"{self.name}: condition {condition!r}, expected one of {', '.join(CONDITIONS)}")
        block = Block(kind, (self._find(left), condition, self._operand(right)), times=times)
        before = dict(self.live)
        self._blocks[-1].append(block)
        self._blocks.append(block.body)
        yield
        if block.test[0].place in FLOAT_REGISTERS and kind != "if":
            self._allocate("tested", CORE_REGISTERS, block.test[0].pointer)
            self.vmov("tested", left)
            block.test = (self._find("tested"), *block.test[1:])
            self.free("tested")
        self._blocks.pop()
        if self.live != before:
            names = ", ".join(sorted(self.live.keys() ^ before.keys())) or "some"
            raise ValueError(f"{self.name}: registers {names} are made or freed inside a block; do both inside or both outside")


def _addends(number: int) -> list[int]:
    """Returns numbers of this sum that ADD and SUB hold: up to 4095, or eight bits in a row."""
    sign, rest, found = -1 if number < 0 else 1, abs(number), list[int]()
    while rest > 4095 and rest != (top := _leading_byte(rest)):
        found.append(sign * top)
        rest -= top
    return [*found, sign * rest]


def _leading_byte(number: int) -> int:
    zeros = number.bit_length() - 8
    return number >> zeros << zeros


def instructions(nodes: list[Node]) -> Iterator[Instruction]:
    """Yields the instructions in a list of nodes and in the blocks below it."""
    for node in nodes:
        if isinstance(node, Block):
            yield from instructions(node.body)
        elif isinstance(node, Instruction):
            yield node
