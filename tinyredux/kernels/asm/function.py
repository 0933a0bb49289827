"""A kernel as a list of machine instructions over named registers, written once and printed twice.

A template makes a function by calling one method per instruction (the table is in `instructions`); registers have names and
are given a place among r0..r12, lr when they are made. `print_assembly` writes the function for the boards, `print_c` the
same instructions as C statements, so that tests on a computer run the very same algorithm.

    p = Function("tr_sum", ("const int8_t *from", "int32_t *to", "int32_t n"))
    p.new("total", "x")
    p.mov("total", 0)
    with p.loop("n"):                      # n is counted down to 0; it must not be 0 at the start
        p.ldrsb_post("x", "from", 1)
        p.add("total", "total", "x")
    p.str("total", "to", 0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from itertools import groupby

from tinyredux.kernels.asm.instructions import OPS, Op

CORE_REGISTERS = (*(f"r{i}" for i in range(13)), "lr")
FLOAT_REGISTERS = tuple(f"s{i}" for i in range(32))
OFFSETS, WRITTEN_BACK = range(-255, 4096), range(-255, 256)  # that a load or store can add to its address
LARGEST_IMMEDIATE = 4095  # of an addition


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


READ, WRITTEN, ADDRESS = "rsmab", "wmb", "ab"  # roles of registers, as in `instructions`


@dataclass(frozen=True)
class Instruction:
    """One instruction with its operands; `shift` is that of the last register operand, such as "lsl 2"."""

    name: str
    op: Op
    operands: tuple[Operand, ...]
    shift: str = ""

    def registers(self, roles: str) -> list[Register]:
        """Returns the registers among the operands that have one of these roles."""
        both = zip(self.op.roles, self.operands, strict=True)
        return [value for role, value in both if role in roles and isinstance(value, Register)]


@dataclass
class Block:
    """A loop: its body runs, and again until `left` equals `right`. `counted`: `left` loses 1 before it is compared with 0.

    `times`: how often the body runs each time the block is met, on average; for predicting cycles only.
    """

    left: Register
    right: Operand = 0
    counted: bool = False
    times: float = 1
    body: list[Node] = field(default_factory=list)


Node = Instruction | Block


class Function:
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

    def with_body(self, body: list[Node]) -> Function:
        """Returns the same function with other instructions, over the same registers."""
        changed = copy(self)
        changed.body, changed._blocks = body, [body]
        return changed

    # Registers ----------------------------------------------------------------------------------------------------

    def new(self, *names: str) -> None:
        """Gives each name the lowest free core register: for a 32-bit value or, with a `*` before the name, for an address."""
        for name in names:
            self._allocate(name.lstrip("*"), CORE_REGISTERS, name[0] == "*")

    def new_float(self, *names: str) -> None:
        """Gives each name a floating-point register: a place to keep a core register in, by `vmov`, for one cycle."""
        for name in names:
            self._allocate(name.lstrip("*"), FLOAT_REGISTERS, name[0] == "*")

    @contextmanager
    def registers(self, *names: str) -> Iterator[None]:
        """Gives each name a core register, as `new` does, for the body alone."""
        self.new(*names)
        yield
        self.free(*(name.lstrip("*") for name in names))

    def _borrowed(self, name: str) -> AbstractContextManager[None]:
        """Gives a name a core register for the body, where it has none already."""
        return nullcontext() if name in self.live else self.registers(name)

    def keep(self, *names: str) -> None:
        """Makes room: gives each name a floating-point register NAME_kept, and moves there those that are in core registers."""
        self.new_float(*(f"{name}_kept" for name in names))
        moved = [name.lstrip("*") for name in names if name.lstrip("*") in self.live]
        self.vmovs(**{f"{name}_kept": name for name in moved})
        self.free(*moved)

    @contextmanager
    def fetched(self, name: str, kept: str = "") -> Iterator[None]:
        """Holds what floating-point register `kept` (NAME_kept) keeps in core register `name` for the body, and puts it back."""
        kept = kept or f"{name}_kept"
        with self.registers("*" * self._find(kept).pointer + name):
            self.vmov(name, kept)
            yield
            self.vmov(kept, name)

    def free(self, *names: str) -> None:
        """Gives the registers of these names back."""
        for name in names:
            del self.live[self._find(name).name]

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
        found = tuple(self._operand(value) for value in operands)
        fit = all(role == "s" or isinstance(value, int) == (role in "no") for role, value in zip(op.roles, found, strict=False))
        if len(found) != len(op.roles) or not fit:
            raise ValueError(f"{self.name}: {name} takes {len(op.roles)} operands ({op.roles}), found {operands}")
        last = found[-1]
        if "o" in op.roles and last not in (WRITTEN_BACK if "b" in op.roles else OFFSETS):
            self._add_far(name, op, operands)
        elif name in ("add", "sub") and isinstance(last, int) and len(parts := _addends(last)) > 1:
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

    def advance(self, name: str, distance: int) -> None:
        """Adds any number to a register, at most LARGEST_IMMEDIATE at a time."""
        while distance:
            step = max(-LARGEST_IMMEDIATE, min(LARGEST_IMMEDIATE, distance))
            self.add(name, name, step)
            distance -= step

    def move(self, to: str, source: str, distance: int, spare: str = "far") -> None:
        """Sets `to` to `source` + `distance`; where ADD has no room for that, by way of `spare`, new if there is none."""
        add = self.add if distance >= 0 else self.sub
        if abs(distance) <= LARGEST_IMMEDIATE:
            if distance or to != source:
                add(to, source, abs(distance))
            return
        with self._borrowed(spare):
            self.constant(spare, abs(distance))
            add(to, source, spare)

    def vmovs(self, **sources: str) -> None:
        """Moves `source` to `name` for each name=source, one after the other."""
        for name, source in sources.items():
            self.vmov(name, source)

    def load(self, base: str, offset: int, *names: str, step: int = 4) -> None:
        """Loads words `step` bytes apart, by an LDR each: in a row they take a cycle each, and one more for the first."""
        for i, name in enumerate(names):
            self.ldr(name, base, offset + step * i)

    def store(self, base: str, offset: int, *names: str, step: int = 4) -> None:
        """Stores words `step` bytes apart, by a STR each."""
        for i, name in enumerate(names):
            self.str(name, base, offset + step * i)

    def ldm(self, base: str, *names: str) -> None:
        """Loads words into registers, the lowest register first, and moves the base behind them."""
        self._many("ldm", "{each} = tw_ldr({{0}} + {at});", base, names)

    def stm(self, base: str, *names: str) -> None:
        """Stores registers, the lowest first, and moves the base behind them."""
        self._many("stm", "tw_str({{0}} + {at}, {each});", base, names)

    def _many(self, name: str, statement: str, base: str, names: Sequence[str]) -> None:
        places = [CORE_REGISTERS.index(self._find(each).place) for each in names]
        if places != sorted(places):
            raise ValueError(f"{self.name}: {name} moves registers in ascending order, but {list(names)} lie in {places}")
        numbered = [f"{{{i + 1}}}" for i in range(len(names))]
        asm = f"{name}ia.w {{0}}!, {{{{{', '.join(numbered)}}}}}"
        c = " ".join(statement.format(each=each, at=4 * i) for i, each in enumerate(numbered))
        roles, kind = ("w", "load-many") if name == "ldm" else ("r", "store-many")
        self._add(name, Op(asm, f"{c} {{0}} = {{0}} + {4 * len(names)};", "b" + roles * len(names), kind), (base, *names))

    # Blocks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, counter: str, times: float = 1, through: str = "") -> Iterator[None]:
        """Repeats the body `counter` times, at least once; leaves the counter 0.

        A counter in a floating-point register passes through core register `through`, or one that is free behind the body.
        """
        counted = self._find(counter).place in CORE_REGISTERS
        with self.loop_until(counter if counted else through or counter, 0, times, counted):
            yield
            if not counted:
                through = through or "counted"
                with self._borrowed(through):
                    self.vmov(through, counter)
                    self.sub(through, through, 1)
                    self.vmov(counter, through)

    @contextmanager
    def repeated(self, counter: str, times: int) -> Iterator[None]:
        """Runs the body a known number of times: in a loop over `counter`, a new register if there is none, if more than once."""
        if times == 1:
            yield
            return
        with self._borrowed(counter):
            self.constant(counter, times)
            with self.loop(counter, times):
                yield

    @contextmanager
    def loop_until(self, left: str, right: str | int, times: float = 1, counted: bool = False) -> Iterator[None]:
        """Runs the body, and again until `left` equals `right` at its end; `counted` as in `Block`.

        `left` may be a floating-point register if a core register is free at the end of the body.
        """
        block, before = Block(self._find(left), self._operand(right), counted, times), dict(self.live)
        self._blocks[-1].append(block)
        self._blocks.append(block.body)
        yield
        if block.left.place in FLOAT_REGISTERS:
            tested = "address_tested" if block.left.pointer else "tested"
            with self.registers("*" * block.left.pointer + tested):
                self.vmov(tested, left)
                block.left = self._find(tested)
        self._blocks.pop()
        if self.live != before:
            names = ", ".join(sorted(self.live.keys() ^ before.keys())) or "some"
            raise ValueError(f"{self.name}: registers {names} are made or freed inside a block; do both inside or both outside")


def _addends(number: int) -> list[int]:
    """Returns numbers of this sum that ADD and SUB hold: up to LARGEST_IMMEDIATE, or eight bits in a row."""
    sign, rest, found = -1 if number < 0 else 1, abs(number), list[int]()
    while rest > LARGEST_IMMEDIATE and (low := rest % (1 << rest.bit_length() - 8)):
        found.append(sign * (rest - low))
        rest = low
    return [*found, sign * rest]


def straight_lines(nodes: Sequence[Node]) -> Iterator[Block | tuple[Instruction, ...]]:
    """Yields the blocks in a list of nodes and the straight lines of instructions between them, in order."""
    for kind, group in groupby(nodes, key=type):
        part = tuple(group)
        yield from part if kind is Block else [part]  # type: ignore[misc]


def instructions(nodes: Sequence[Node]) -> Iterator[Instruction]:
    """Yields the instructions in a list of nodes and in the blocks below it."""
    for node in nodes:
        yield from instructions(node.body) if isinstance(node, Block) else (node,)
