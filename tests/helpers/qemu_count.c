/* QEMU plugin (interface version 1): writes the number of instructions executed to the file named by the argument to=PATH. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The prototypes that we need; the header that declares them is not packaged with the emulator. */
struct qemu_plugin_tb;
typedef uint64_t plugin_id;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*callback)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int add, void *counter, uint64_t amount);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*callback)(plugin_id, void *), void *user);

int qemu_plugin_version = 1;
static uint64_t instructions;
static char path[4096];

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, 0, &instructions, qemu_plugin_tb_n_insns(block));
}

static void leaving(plugin_id id, void *user)
{
    FILE *out = fopen(path, "w");
    (void)id, (void)user;
    if (out) {
        fprintf(out, "%llu\n", (unsigned long long)instructions);
        fclose(out);
    }
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc < 1 || strncmp(argv[0], "to=", 3) || strlen(argv[0]) >= sizeof path)
        return -1;
    strcpy(path, argv[0] + 3);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, leaving, NULL);
    return 0;
}
