#include <stddef.h>
#include <stdint.h>
#include "dot.h"
#include "port.h"
#include "requantize.h"
#include "tinyredux.h"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
extern const void *const cell_input;
void cell(void);
void print_number(const char *name, int32_t value);
void print_numbers(const char *name, const int32_t *values, int32_t count);
void print_bytes(const char *name, const int8_t *values, int32_t count);
