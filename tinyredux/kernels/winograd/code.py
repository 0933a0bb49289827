"""The functions of Winograd convolution: pixels into a tile, its transform, the products, and outputs from their sums."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from tinyredux.int8 import Clamp
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.winograd.tile import SPLIT_BITS, TILES, Layer, Tile

INVERSE_OF_9 = 0x38E38E39  # modulo 2^32
PLANTED = {4: (2, 0, 1, 1), 6: (0, 0, 0, 0, 1, 1)}  # the combination of inputs that every row of the input transform maps to 1


def widen_function(tile: Tile, in_c: int) -> Function:
    """Returns the function that widens neighbouring pixels into a tile, (in_c / 2, n, n) words; `to`: the first's place."""
    fours = in_c // 4
    batch = max(size for size in (1, 2, 3, 4) if fours % size == 0)
    about = f"Neighbouring pixels of {in_c} channels into a tile of {tile.n}x{tile.n} words, x + 128 in halves."
    p = Function(f"tr_tile{tile.n}_c{in_c}", ("uint32_t *to", "const int8_t *from", "int32_t pixels"), about)
    words = [f"word{i}" for i in range(batch)]
    p.new("left", "even", *words)
    pair_bytes = 4 * tile.places
    with p.loop("pixels", times=tile.n):
        p.mov("left", fours // batch)
        with p.loop("left", times=fours // batch):
            p.load("from", 0, *words)
            p.add("from", "from", 4 * batch)
            for i, word in enumerate(words):
                p.eor(word, word, 0x80808080)
                p.uxtb16("even", word)
                p.uxtb16_ror8(word, word)
                p.str("even", "to", 2 * i * pair_bytes)
                p.str(word, "to", (2 * i + 1) * pair_bytes)
            p.add("to", "to", 2 * batch * pair_bytes)
        p.constant("left", 2 * fours * pair_bytes - 4)
        p.sub("to", "to", "left")
    return p


def input_function(layer: Layer) -> Function:
    """Returns the function that transforms one tile, written over, into its column of `v`: (in_c / 2, products, TILES) words.

    First the columns of all pairs, then their rows: either loop stays in an instruction cache of 1 KiB, both together do not.
    """
    tile = layer.tile
    n = tile.n
    about = f"Winograd input transform of {n}x{n} tiles, two channels in a word, into {layer.products} products."
    name = f"tr_input{n}_{'_'.join(map(str, (layer.products, *layer.split)))}"
    p = Function(name, ("uint32_t *v", "uint32_t *tile", "int32_t pairs"), about)
    x = [f"x{i}" for i in range(n)]
    p.new(*x, "t", "u")
    planted = PLANTED[n]
    p.new_float("*first")
    p.vmov("first", "tile")
    with p.registers("left"):
        p.mov("left", "pairs")
        with p.loop("left", times=layer.pairs):
            for column in range(n):
                p.load("tile", 4 * column, *x, step=4 * n)
                for i in range(n):
                    if planted[i] * planted[column]:
                        p.add(x[i], x[i], planted[i] * planted[column] << 15)
                p.store("tile", 4 * column, *_input_axis(p, x), step=4 * n)
            p.add("tile", "tile", 4 * tile.places)
    p.vmov("tile", "first")
    with p.loop("pairs", times=layer.pairs):
        for row in range(n):
            p.load("tile", 4 * n * row, *x)
            for i, register in enumerate(_input_axis(p, x)):
                p.eor(register, register, 0x8000)
                p.str(register, "v", 4 * TILES * (n * row + i))
                if n * row + i in layer.split:
                    p.str(register, "v", 4 * TILES * (tile.places + layer.split.index(n * row + i)))
        p.add("tile", "tile", 4 * tile.places)
        p.add("v", "v", layer.step_bytes)
    return p


def _input_axis(p: Function, x: Sequence[str]) -> list[str]:
    """Transforms the registers `x` with the help of t and u, and returns the registers of the results in order."""
    if len(x) == 4:
        p.sub("t", x[0], x[2])
        p.sub(x[3], x[3], x[1])
        p.add(x[0], x[1], x[2])
        p.sub(x[2], x[2], x[1])
        return ["t", x[0], x[2], x[3]]
    p.sub("t", x[4], x[2])
    p.sub("u", x[3], x[1])
    p.sub(x[0], x[0], x[2])
    p.add(x[0], "t", x[0], "lsl 2")
    p.sub(x[5], x[5], x[3])
    p.sub(x[5], x[5], "u", "lsl 2")
    p.sub(x[4], x[4], x[2], "lsl 2")
    p.sub(x[3], x[3], x[1], "lsl 2")
    p.add(x[1], x[4], x[3])
    p.sub(x[2], x[4], x[3])
    p.add(x[3], "t", "u", "lsl 1")
    p.sub(x[4], "t", "u", "lsl 1")
    return list(x)


def unpack_function(layer: Layer) -> Function:
    """Returns the function that transforms two channels' weights (`bytes_of`) as `data` has them: (products, in_c / 2, 2) words.

    The nine weights of two inputs, one in each half of a register, are G g of one row of G after the other, and that times G^T.
    """
    n, pairs = layer.tile.n, layer.pairs
    about = f"Winograd transform of 3x3 kernels of {layer.in_c} channels into {n}x{n} places, two channels."
    p = Function(f"tr_unpack{n}_c{layer.in_c}", ("uint32_t *to", "const int32_t *from"), about)
    p.keep("*from", "*ninth", "left", "*channel")
    weights = [f"w{i}" for i in range(9)]
    p.new(*weights)
    p.mov("w0", 2)
    p.new_float("channels")
    p.vmov("channels", "w0")
    with p.loop("channels", 2, through="w0"):
        p.vmov("channel_kept", "to")
        with p.fetched("from"), p.registers("far"):
            p.move("from", "from", 16 * pairs, "far")
            p.vmov("ninth_kept", "from")
            p.move("from", "from", -16 * pairs, "far")
            p.constant("far", pairs)
            p.vmov("left_kept", "far")
        with p.loop("left_kept", pairs, through="w0"):
            _load_weights(p)
            with p.registers("t0", "t1", "t2", "x"):
                _kernel_columns(p, layer)
            p.add("to", "to", 8)
        p.vmov("from_kept", "ninth_kept")
        p.vmov("to", "channel_kept")
        p.add("to", "to", 4)
    return p


def _load_weights(p: Function) -> None:
    """Nine weights of two inputs into w0 .. w8: words of two weights each, then two bytes of the last."""
    with p.fetched("from"):
        p.load("from", 0, "w0", "w2", "w4", "w6")
        p.add("from", "from", 16)
    for i in range(0, 8, 2):
        p.sxtb16_ror8(f"w{i + 1}", f"w{i}")
        p.sxtb16(f"w{i}", f"w{i}")
    with p.fetched("ninth"), p.registers("high"):
        p.ldrsb("w8", "ninth", 0)
        p.ldrsb("high", "ninth", 1)
        p.add("ninth", "ninth", 2)
        p.pkhbt("w8", "w8", "high", "lsl 16")


def _kernel_columns(p: Function, layer: Layer) -> None:
    """Row after row of G times the kernel, which it turns into sums of its rows on the way; each times G^T into its places."""
    top, middle, bottom = (range(3 * row, 3 * row + 3) for row in range(3))
    row_bytes, at = 8 * layer.pairs * layer.tile.n, 0

    def put(row: int) -> None:
        nonlocal at
        (p.add if row >= at else p.sub)("to", "to", abs(row - at) * row_bytes)
        at = row
        _kernel_row(p, 8 * layer.pairs)

    for i in range(3):
        p.qadd16(f"t{i}", f"w{top[i]}", f"w{top[i]}")
        p.qadd16(f"t{i}", f"t{i}", f"w{top[i]}")
    put(0)
    for i in range(3):
        p.qadd16(f"w{top[i]}", f"w{top[i]}", f"w{bottom[i]}")  # top and bottom
        p.qsub16(f"t{i}", f"w{middle[i]}", f"w{top[i]}")
    put(2)
    p.mov("x", 0)
    for i in range(3):
        p.qsub16(f"w{top[i]}", "x", f"w{top[i]}")
        p.qsub16(f"t{i}", f"w{top[i]}", f"w{middle[i]}")
    put(1)
    for i in range(3):
        p.qadd16(f"t{i}", f"w{bottom[i]}", f"w{bottom[i]}")
        p.qadd16(f"t{i}", f"t{i}", f"w{bottom[i]}")
        p.qsub16(f"w{top[i]}", f"t{i}", f"w{top[i]}")  # top and four times bottom
        p.qadd16(f"w{middle[i]}", f"w{middle[i]}", f"w{middle[i]}")
    put(5)
    for row, add in ((3, p.qadd16), (4, p.qsub16)):
        for i in range(3):
            add(f"t{i}", f"w{top[i]}", f"w{middle[i]}")
        put(row)
    p.sub("to", "to", at * row_bytes)


def _kernel_row(p: Function, place_bytes: int) -> None:
    """Writes t0, t1, t2 times G^T, six places, to `to`."""
    p.qadd16("x", "t0", "t0")
    p.qadd16("x", "x", "t0")
    p.str("x", "to", 0)
    p.qadd16("t0", "t0", "t2")
    p.qsub16("x", "t1", "t0")
    p.str("x", "to", 2 * place_bytes)
    p.qadd16("t1", "t1", "t1")
    p.qsub16("x", "x", "t1")
    p.str("x", "to", place_bytes)
    p.qadd16("x", "t2", "t2")
    p.qadd16("x", "x", "t2")
    p.str("x", "to", 5 * place_bytes)
    p.qadd16("t0", "t0", "x")
    p.qadd16("x", "t0", "t1")
    p.str("x", "to", 3 * place_bytes)
    p.qsub16("x", "t0", "t1")
    p.str("x", "to", 4 * place_bytes)


def product_function(layer: Layer) -> Function:
    """Returns the function that multiplies `TILES` transformed tiles with two channels: `sums` is (products, 2, TILES) words."""
    about = f"Winograd products: {layer.products} places, 2 channels x {TILES} tiles, {layer.in_c} channels deep."
    name = f"tr_products{layer.products}_c{layer.in_c}"
    p = Function(name, ("int32_t *sums", "const uint32_t *v", "const int32_t *group"), about)
    p.keep("*sums", "*end", "left")
    totals = [f"sum{channel}_{tile}" for channel in range(2) for tile in range(TILES)]
    p.new(*totals, "v0", "v1", "u0", "u1")
    p.constant("v0", 4 * layer.group_words - 24)
    p.free("u1")
    p.new("*end")
    p.add("end", "group", "v0")
    p.vmov("end_kept", "end")
    rounds = layer.pairs // layer.steps
    with p.loop_until("group", "end", times=layer.products):
        for total in totals:
            p.mov(total, 0)
        if rounds > 1:
            p.mov("v0", rounds)
            p.vmov("left_kept", "v0")
        p.free("end")
        with p.loop("left_kept", rounds, through="v0") if rounds > 1 else nullcontext():
            _round(p, layer)
        with p.fetched("sums"):
            p.stm("sums", *totals)
        p.new("*end")
        p.constant("v0", layer.pairs * layer.step_bytes - 4 * TILES)
        p.sub("v", "v", "v0")
        p.vmov("end", "end_kept")
    return p


def _round(p: Function, layer: Layer) -> None:
    with p.registers("u1"):
        offset = 0
        for step in range(layer.steps):
            if offset + 4 * TILES > LARGEST_IMMEDIATE:
                p.advance("v", offset)
                offset = 0
            p.load("group", 8 * step, "u0", "u1")
            for half in range(0, TILES, 2):
                p.load("v", offset + 4 * half, "v0", "v1")
                for channel in range(2):
                    for tile in range(2):
                        total = f"sum{channel}_{half + tile}"
                        p.smlad(total, f"u{channel}", f"v{tile}", total)
            offset += layer.step_bytes
        p.constant("u0", offset)
        p.add("v", "v", "u0")
        p.add("group", "group", 8 * layer.steps)


def columns_function(layer: Layer) -> Function:
    """Returns the function that transforms the columns of the sums of `TILES` tiles and two channels, in place: n become m."""
    tile, n, place_bytes = layer.tile, layer.tile.n, 8 * TILES
    places = "_".join(map(str, (layer.products, *layer.split)))
    about = f"Winograd output transform of columns: {n} sums become {tile.m}, 2 channels x {TILES} tiles."
    p = Function(f"tr_columns{n}_{tile.m}_{places}", ("int32_t *sums",), about)
    x = [f"x{i}" for i in range(n)]
    p.new(*x, "t", "u", "left")
    p.mov("left", 2 * TILES)
    with p.loop("left", 2 * TILES):
        for column in range(n):
            p.load("sums", place_bytes * column, *x, step=place_bytes * n)
            for i in range(n):
                if n * i + column in layer.split:
                    p.ldr("t", "sums", place_bytes * (n * n + layer.split.index(n * i + column)))
                    p.add(x[i], x[i], "t", f"lsl {SPLIT_BITS}")
            p.store("sums", place_bytes * column, *_output_axis(p, tile, x), step=place_bytes * n)
        p.add("sums", "sums", 4)
    return p


def output_function(tile: Tile, zero_point: int, clamp: Clamp, row_bytes: int, pixel_bytes: int) -> Function:
    """Returns the function that turns a tile's sums of two channels, their columns transformed, into int8 outputs.

    sums: the tile's column of the sums; factors: start value, multiplier and shift of each channel.
    """
    m = tile.m
    about = f"Winograd output transform: {m}x{m} outputs of two channels, {row_bytes} bytes a row, {pixel_bytes} a pixel."
    name = f"tr_output{tile.n}_{m}_{row_bytes}_{pixel_bytes}_{requantize.name(zero_point, clamp)}"
    p = Function(name, ("int8_t *out", "const int32_t *sums", "const int32_t *factors"), about)
    p.keep("*factors", "left")
    x = [f"x{i}" for i in range(tile.n)]
    p.new(*x, "t", "u", "start", "multiplier", "right")
    p.mov("t", 2)
    p.vmov("left_kept", "t")
    with p.loop("left_kept", 2, through="t"):
        with p.fetched("factors"):
            p.ldm("factors", "start", "multiplier", "right")
        _output_rows(p, tile, x, (zero_point, clamp), (row_bytes, pixel_bytes))
        p.add("out", "out", 1)
        p.add("sums", "sums", 4 * TILES)
    return p


def _output_rows(p: Function, tile: Tile, x: Sequence[str], output: tuple[int, Clamp], pitches: tuple[int, int]) -> None:
    """The second axis, the scale taken off, requantisation."""
    if tile.n == 6:
        p.new("inverse")
        p.constant("inverse", INVERSE_OF_9)
    for row in range(tile.m):
        p.load("sums", 8 * TILES * tile.n * row, *x, step=8 * TILES)
        for i, register in enumerate(_output_axis(p, tile, x)):
            if tile.n == 6:
                p.mul(register, register, "inverse")
            p.add(register, "start", register, f"asr {tile.scale_bits(row) + tile.scale_bits(i) - 1}")
            requantize.requantize(p, register, "multiplier", "right", *output)
            p.strb(register, "out", i * pitches[1])
        p.constant("t", pitches[0] if row < tile.m - 1 else pitches[0] * (tile.m - 1))
        (p.add if row < tile.m - 1 else p.sub)("out", "out", "t")
    if tile.n == 6:
        p.free("inverse")


def _output_axis(p: Function, tile: Tile, x: Sequence[str]) -> list[str]:
    """Transforms the registers `x` with the help of t and u; returns the registers of the m results, scaled by `scale_bits`."""
    last = tile.m - 1
    p.add("t", x[1], x[2])
    p.sub(x[1], x[1], x[2])
    if tile.n == 4:
        p.add(x[0], "t", x[0], "lsl 1")
        p.add("t" if last == 2 else x[1], "t" if last == 2 else x[1], x[3], "lsl 1")
        return [x[0], x[1], "t"][: tile.m]
    p.add("u", x[3], x[4])
    p.sub(x[3], x[3], x[4])
    p.add(x[0], x[0], "t", "lsl 1")
    p.add(x[0], "u", x[0], "lsl 1")
    if last == 1:
        p.add(x[1], x[1], x[5], "lsl 1")
    p.add(x[2], x[3], x[1], "lsl 1")
    if last >= 2:
        p.add(x[4], "t", "u")
    if last == 2:
        p.add(x[4], x[4], x[5], "lsl 1")
    if last == 3:
        p.add(x[3], x[3], x[5])
    if last >= 3:
        p.add(x[1], x[1], x[3], "lsl 1")
    if last == 4:
        p.add("t", "t", "u", "lsl 2")
        p.add("t", "t", x[5], "lsl 1")
    return [x[0], x[2], x[4], x[1], "t"][: tile.m]
