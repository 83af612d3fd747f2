/* SPDX-License-Identifier: MIT */
/* User mode: entered by IRET and SYSRET, left by SYSCALL, INT and faults; what it may not touch. */
#include "samples/kernel/kernel.h"

enum { STAR = 0xc0000081, LSTAR = 0xc0000082, FMASK = 0xc0000084 };
enum { IF = 0x200, DIRECTION = 0x400, USER_FLAGS = 0x202 };
enum { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4, PF_FETCH = 16 };
/* linear addresses of the user's world */
enum {
    USER_TEXT = 0x50000000,
    USER_STACK = 0x50010000,
    USER_STACK_TOP = USER_STACK + PAGE,
    READ_ONLY = 0x50020000
};

static uint8_t text[PAGE] __attribute__((aligned(PAGE)));
static uint8_t stack[PAGE] __attribute__((aligned(PAGE)));
static uint8_t read_only[PAGE] __attribute__((aligned(PAGE)));
static uint8_t kernel_page[PAGE] __attribute__((aligned(PAGE)));
static uint8_t interrupt_stack[PAGE] __attribute__((aligned(16)));

/* How user mode was left. */
static volatile struct {
    int vector; /* -1: SYSCALL */
    uint64_t error, cr2, rip, cs, rflags, rax, rcx, r11;
} left;
/* The kernel's side: where user mode is entered from, and returned to. */
uint64_t kernel_rsp;
extern char syscall_entry[];

/* Goes to user mode with RAX and RDI as given; comes back when user mode is left. */
void enter_by_iret(uint64_t rip, uint64_t rax, uint64_t rdi);
void enter_by_sysret(uint64_t rip, uint64_t rax, uint64_t rdi);
void leave(void) __attribute__((noreturn));
void syscall_handler(uint64_t rax, uint64_t rcx, uint64_t r11);

__asm__(
    ".text\n"
    "save_kernel:\n" /* callee-saved registers below the return address of our caller's caller */
    "    pop %r8\n"
    "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
    "    mov %rsp, kernel_rsp(%rip)\n"
    "    jmp *%r8\n"
    ".globl enter_by_iret\n"
    "enter_by_iret:\n"
    "    call save_kernel\n"
    "    push $0x23\n    push $0x50011000\n    push $0x202\n    push $0x2b\n    push %rdi\n"
    "    mov %rsi, %rax\n    mov %rdx, %rdi\n"
    "    iretq\n"
    ".globl enter_by_sysret\n"
    "enter_by_sysret:\n"
    "    call save_kernel\n"
    "    mov %rdi, %rcx\n    mov $0x202, %r11\n    mov %rsi, %rax\n    mov %rdx, %rdi\n"
    "    mov $0x50011000, %esp\n"
    "    sysretq\n"
    ".globl leave\n"
    "leave:\n"
    "    mov kernel_rsp(%rip), %rsp\n"
    "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
    "    ret\n"
    ".globl syscall_entry\n"
    "syscall_entry:\n"
    "    mov kernel_rsp(%rip), %rsp\n"
    "    and $-16, %rsp\n"
    "    mov %rax, %rdi\n    mov %rcx, %rsi\n    mov %r11, %rdx\n"
    "    call syscall_handler\n");

void syscall_handler(uint64_t rax, uint64_t rcx, uint64_t r11)
{
    left.vector = -1;
    left.rax = rax;
    left.rcx = rcx;
    left.r11 = r11;
    __asm__ volatile("pushf\n\tpopq %0" : "=r"(left.rflags));
    leave();
}

static void left_by_interrupt(struct frame *frame)
{
    left.vector = (int)frame->vector;
    left.error = frame->error;
    left.cr2 = READ_CR(2);
    left.rip = frame->rip;
    left.cs = frame->cs;
    left.rflags = frame->rflags;
    left.rax = frame->rax;
    leave();
}

/* Puts code where user mode begins. */
#define CODE(...)                                                                                  \
    do {                                                                                           \
        static const uint8_t code_[] = {__VA_ARGS__};                                              \
        for (unsigned i_ = 0; i_ < sizeof code_; i_++)                                             \
            text[i_] = code_[i_];                                                                  \
        left.vector = -2;                                                                          \
    } while (0)
#define SYSCALL 0x0f, 0x05

static void expect(int vector, uint64_t error, const char *what)
{
    bool good = left.vector == vector && left.error == error;
    check(good, what);
    if (!good)
        print("    vector %u, error 0x%x, RIP 0x%x, CR2 0x%x\n", (uint64_t)left.vector, left.error,
              left.rip, left.cr2);
}

void by_system_call(void)
{
    CODE(0x48, 0x8d, 0x47, 0x01, /* lea 1(%rdi), %rax */
         SYSCALL);
    enter_by_iret(USER_TEXT, 0, 41);
    check(left.vector == -1 && left.rax == 42, "IRET enters user mode, SYSCALL leaves it");
    check(left.rcx == USER_TEXT + 6, "RCX is the address behind SYSCALL");
    check((left.r11 & (IF | 2)) == USER_FLAGS, "R11 is the user's RFLAGS");
    check(!(left.rflags & IF), "IF is masked by IA32_FMASK");
    left.vector = -2;
    enter_by_sysret(USER_TEXT, 0, 99);
    check(left.vector == -1 && left.rax == 100, "SYSRET enters user mode too");
    CODE(0x8c, 0xc8,       /* mov %cs, %eax */
         0xc1, 0xe0, 0x10, /* shl $16, %eax */
         0x66, 0x8c, 0xd0, /* mov %ss, %ax */
         SYSCALL);
    enter_by_sysret(USER_TEXT, 0, 0);
    check(left.rax == ((uint64_t)USER_CODE << 16 | USER_DATA),
          "with the selectors that IA32_STAR gives");
    uint64_t sum = 0;
    CODE(0x48, 0x8d, 0x47, 0x01, SYSCALL);
    for (unsigned i = 0; i < 1000; i++) {
        enter_by_sysret(USER_TEXT, 0, sum);
        sum = left.rax;
    }
    check(sum == 1000, "1000 times to user mode and back");
}

void by_interrupt(void)
{
    allow_from_user(0x80);
    on_interrupt(0x80, left_by_interrupt);
    on_interrupt(0x81, left_by_interrupt);
    CODE(0xb8, 7, 0, 0, 0, /* mov $7, %eax */
         0xcd, 0x80);      /* int $0x80 */
    enter_by_iret(USER_TEXT, 0, 0);
    check(left.vector == 0x80 && left.rax == 7 && left.rip == USER_TEXT + 7 && left.cs == USER_CODE,
          "INT through a gate for user mode leaves it");
    CODE(0xcd, 0x81);
    enter_by_iret(USER_TEXT, 0, 0);
    if (left.error == 0x81 * 16 + 2) /* so does QEMU */
        check_optional(false, false, "INT through a gate that is the kernel's: general protection");
    else
        expect(GP, 0x81 * 8 + 2, "INT through a gate that is the kernel's: general protection");
}

void privileged(void)
{
    CODE(0xf4);
    enter_by_iret(USER_TEXT, 0, 0);
    expect(GP, 0, "HLT in user mode: general protection");
    CODE(0xfa);
    enter_by_iret(USER_TEXT, 0, 0);
    expect(GP, 0, "CLI");
    CODE(0xe4, 0x60);
    enter_by_iret(USER_TEXT, 0, 0);
    expect(GP, 0, "IN without a permission bit");
    CODE(0x0f, 0x32);
    enter_by_iret(USER_TEXT, 0, 0);
    expect(GP, 0, "RDMSR");
    CODE(0x0f, 0x30);
    enter_by_iret(USER_TEXT, 0, 0);
    expect(GP, 0, "WRMSR");
    CODE(0x0f, 0x20, 0xc0);
    enter_by_iret(USER_TEXT, 0, 0);
    expect(GP, 0, "MOV from CR0");
    CODE(0x0f, 0x01, 0xf8);
    enter_by_iret(USER_TEXT, 0, 0);
    expect(GP, 0, "SWAPGS");
    CODE(0x0f, 0x0b);
    enter_by_iret(USER_TEXT, 0, 0);
    expect(UD, 0, "UD2 in user mode: invalid opcode");
    check(left.rip == USER_TEXT && left.cs == USER_CODE, "the saved CS and RIP are the user's");
    *(uint64_t *)(stack + PAGE - 8) = DIRECTION; /* IF clear, IOPL 0 */
    CODE(0x48, 0x83, 0xec, 0x08,                 /* sub $8, %rsp */
         0x9d,                                   /* popf */
         0x9c, 0x58,                             /* pushf; pop %rax */
         0x48, 0x83, 0xec, 0x08,                 /* sub $8, %rsp */
         SYSCALL);
    enter_by_iret(USER_TEXT, 0, 0);
    check((left.rax & (IF | DIRECTION)) == (IF | DIRECTION),
          "POPF in user mode changes DF but not IF");
}

void pages(void)
{
    CODE(0x48, 0x8b, 0x07, /* mov (%rdi), %rax */
         SYSCALL);
    enter_by_iret(USER_TEXT, 0, (uint64_t)kernel_page);
    expect(PF, PF_USER | PF_PRESENT, "reading the kernel's page: page fault, error 5");
    check(left.cr2 == (uint64_t)kernel_page, "CR2 is its address");
    enter_by_iret(USER_TEXT, 0, 0x60000000);
    expect(PF, PF_USER, "reading where no page is: error 4");
    enter_by_iret(USER_TEXT, 0, READ_ONLY);
    check(left.vector == -1 && left.rax == 0x1234, "reading a page for reading works");
    CODE(0x48, 0x89, 0x07, /* mov %rax, (%rdi) */
         SYSCALL);
    enter_by_iret(USER_TEXT, 0, READ_ONLY);
    expect(PF, PF_USER | PF_PRESENT | PF_WRITE, "writing it: error 7");
    enter_by_iret(USER_TEXT, 0x4321, USER_STACK);
    check(left.vector == -1 && *(uint64_t *)stack == 0x4321, "writing a writable page works");
    CODE(0xff, 0xe7); /* jmp *%rdi */
    enter_by_iret(USER_TEXT, 0, USER_STACK);
    expect(PF, PF_USER | PF_PRESENT | PF_FETCH, "executing a no-execute page: error 0x15");
    enter_by_iret(USER_TEXT, 0, (uint64_t)kernel_page);
    expect(PF, PF_USER | PF_PRESENT | PF_FETCH, "executing the kernel's page: error 0x15");
}

/* Supervisor-mode protection: the kernel in the user's pages. */
void kernel_in_user_pages(void)
{
    enum { SMEP = 1 << 7, SMAP = 1 << 20 };
    enum { CR4_SMEP = 1 << 20, CR4_SMAP = 1 << 21 };
    uint32_t has = cpuid(0, 0).a >= 7 ? cpuid(7, 0).b : 0;
    on_interrupt(PF, NULL);
    CODE(0xc3); /* ret */
    TRY("call *%0", : : "r"((uint64_t)USER_TEXT));
    check(fault.vector < 0, "the kernel may call user code without SMEP");
    if (has & SMEP)
        WRITE_CR(4, READ_CR(4) | CR4_SMEP);
    TRY("call *%0", : : "r"((uint64_t)USER_TEXT));
    check_optional(has & SMEP, fault.vector == PF && fault.error == (PF_PRESENT | PF_FETCH),
                   "but not with it: error 0x11");
    if (has & SMAP)
        WRITE_CR(4, READ_CR(4) | CR4_SMAP);
    TRY("mov (%0), %%rax", : : "r"((uint64_t)READ_ONLY));
    check_optional(has & SMAP, fault.vector == PF && fault.error == PF_PRESENT,
                   "nor read user data with SMAP: error 1");
    if (has & SMAP)
        TRY("stac\n\tmov (%0), %%rax\n\tclac", : : "r"((uint64_t)READ_ONLY));
    check_optional(has & SMAP, fault.vector < 0, "unless RFLAGS.AC is set");
}

void main(void)
{
    /* user pages need the user bit at every level */
    extern uint64_t page_map[], page_directory_pointers[];
    page_map[0] |= PAGE_USER;
    page_directory_pointers[USER_TEXT >> 30] |= PAGE_USER;
    page_directory_pointers[0] |= PAGE_USER;
    map(USER_TEXT, (uint64_t)text, PAGE_PRESENT | PAGE_USER);
    map(USER_STACK, (uint64_t)stack, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER | PAGE_NO_EXECUTE);
    map(READ_ONLY, (uint64_t)read_only, PAGE_PRESENT | PAGE_USER | PAGE_NO_EXECUTE);
    map(0x60000000, 0, 0);
    *(uint64_t *)read_only = 0x1234;
    set_kernel_stack((uint64_t)(interrupt_stack + PAGE));
    write_msr(STAR, (uint64_t)KERNEL_CODE << 32 | 0x1bull << 48);
    write_msr(LSTAR, (uint64_t)syscall_entry);
    write_msr(FMASK, IF | DIRECTION);
    on_interrupt(GP, left_by_interrupt);
    on_interrupt(PF, left_by_interrupt);
    on_interrupt(UD, left_by_interrupt);
    by_system_call();
    by_interrupt();
    privileged();
    pages();
    kernel_in_user_pages();
    finish("user_mode");
}
