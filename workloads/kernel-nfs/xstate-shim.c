/* Preloaded into user-mode Linux. Its kernel 6.1 keeps 2,696 bytes of a process's extended registers. Where a processor has
 * more of them (AMX makes them 11,008 bytes), the host refuses to set them from a buffer that short, and the guest dies as it
 * starts its first program. So the buffer is made as long as the host wants it; what the guest does not know keeps its
 * initial state. [ptrace(2): PTRACE_SETREGSET; Intel SDM vol. 1, chapter 13: the XSAVE area] */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

enum {
    XSTATE_BV = 512,           /* where the header says which components are not in their initial state */
    KNOWN_COMPONENTS = 0x2ff,  /* x87 to PKRU */
    LARGEST = 65536,
};

static char area[LARGEST] __attribute__((aligned(64)));

/* How long the host's area is. */
static size_t length_at_host(long pid, void *type)
{
    static size_t length;
    struct iovec all = {area, sizeof area};
    if (!length && syscall(SYS_ptrace, PTRACE_GETREGSET, pid, type, &all) == 0)
        length = all.iov_len;
    return length;
}

static long set_xstate(long pid, void *type, struct iovec *given)
{
    size_t length = length_at_host(pid, type);
    struct iovec padded = {area, length};
    uint64_t components;

    if (length <= given->iov_len)
        return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, type, given);
    memset(area, 0, sizeof area);
    memcpy(area, given->iov_base, given->iov_len);
    memcpy(&components, area + XSTATE_BV, sizeof components);
    components &= KNOWN_COMPONENTS;
    memcpy(area + XSTATE_BV, &components, sizeof components);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, type, &padded);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, int);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
        return set_xstate(pid, address, data);
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        /* The C library returns what the system call stores. */
        long word, result = syscall(SYS_ptrace, request, pid, address, &word);
        return result < 0 ? result : word;
    }
    return syscall(SYS_ptrace, request, pid, address, data);
}
