"""The assembler of the kernels: functions of Thumb instructions, scheduled, priced and printed with a C twin.

`function` builds loops of instructions on named registers, `schedule` orders them for a core, `cost` counts their cycles by the
simulator's timing rules, `printers` writes assembly and the C that does the same, `requantize` is the end of every sum;
`layers` is what templates share beside instructions: a layer's sums and bounds, words of two numbers, the call in C.
"""
