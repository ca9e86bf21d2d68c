/* Counts the instructions that an emulated program executes, for qemu's user emulation (its plugin interface).
 *
 *   cc -shared -fPIC -O2 -o instructions.so instructions.c
 *   QEMU_PLUGIN=./instructions.so qemu-aarch64 PROGRAM      # needs the dynamically linked qemu
 *
 * The last line on stderr is "instructions N". Unlike a time it is the same on every machine, busy or not.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if __has_include(<qemu-plugin.h>)
#include <qemu-plugin.h>
#else /* Debian ships qemu without its header: what is used of it, as of version 1 of the interface */
typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
#define QEMU_PLUGIN_VERSION 1
#define QEMU_PLUGIN_EXPORT __attribute__((visibility("default")))
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *),
                                          enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
#endif

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static uint64_t executed; /* by all threads */

static void on_block_executed(unsigned int cpu, void *length)
{
    (void)cpu;
    __atomic_fetch_add(&executed, (uint64_t)(uintptr_t)length, __ATOMIC_RELAXED);
}

static void on_block_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block_executed, QEMU_PLUGIN_CB_NO_REGS,
                                         (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void on_exit_of_program(qemu_plugin_id_t id, void *unused)
{
    (void)id;
    (void)unused;
    fprintf(stderr, "instructions %llu\n", (unsigned long long)__atomic_load_n(&executed, __ATOMIC_RELAXED));
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block_translated);
    qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
    return 0;
}
