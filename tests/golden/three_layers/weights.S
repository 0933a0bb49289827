/* The weights as they lie in weights.bin; model.c says what is where. */
    .section .rodata.tr_weights, "a"
    .global tr_weights
    .balign 16
tr_weights:
    .incbin "weights.bin"
    .balign 4
    .section .note.GNU-stack, "", %progbits
