#include <stdint.h>
#define TR_MODEL_NAME "cell"
#define TR_OP_COUNT 1
#define TR_ARENA_BYTES (TR_INPUT_BYTES + TR_OUTPUT_BYTES)
#define TR_SCRATCH_BYTES 0
extern const char *const tr_op_names[TR_OP_COUNT];
int8_t *tr_input(void);
const int8_t *tr_output(void);
void tr_model_run(void);
