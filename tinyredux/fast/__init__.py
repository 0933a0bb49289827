"""Fast exact kernels, generated per layer: an instruction-level description printed as assembly and as C (`program`)."""
