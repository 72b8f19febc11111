/* The first process of a sandbox: reaps, and starts the program behind its last two walls.
 *
 * Rules it keeps:
 *  1. It cannot be read or written by what it starts (not dumpable), and keeps almost no system call for itself.
 *  2. The program starts only when every Landlock rule and the seccomp filter are in force; whatever fails ends the
 *     sandbox with exit code 126 and a line that says what.
 *  3. The listener for refused calls leaves by the given socket before the program exists; neither stays open.
 *  4. When the program ends, so does the sandbox: the kernel kills what is left in the namespace of process 1.
 *
 * Without a C library: a few kilobytes, nothing to load, the same bytes wherever it is built (tools/build_native.py).
 * It decides nothing: masks, rules and filter are computed outside and given as arguments.
 *
 *   inside NOTIFY FILTER OWN FS NET SCOPED [MASK PATH]... -- PROGRAM ARGUMENT...
 *
 * NOTIFY: descriptor of a socket for the listener, or -1. FILTER, OWN: descriptors with the program's filter and with
 * ours, arrays of struct sock_filter. FS, NET, SCOPED: what Landlock handles (0 0 0: no Landlock). Numbers are decimal.
 * Sources: landlock(7), seccomp(2), prctl(2), pid_namespaces(7).
 */

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, SENDMSG = 46, CLONE = 56, EXECVE = 59, EXIT = 231, WAIT4 = 61, PRCTL = 157,
       OPENAT = 257, SECCOMP = 317, LL_CREATE = 444, LL_RULE = 445, LL_RESTRICT = 446 };
static long call(long n, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return r;
}
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n hlt\n");
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, CLOSE = 57, SENDMSG = 211, CLONE = 220, EXECVE = 221, EXIT = 94, WAIT4 = 260, PRCTL = 167,
       OPENAT = 56, SECCOMP = 277, LL_CREATE = 444, LL_RULE = 445, LL_RESTRICT = 446 };
static long call(long n, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
__asm__(".globl _start\n_start:\n mov x29,xzr\n mov x0,sp\n and sp,x0,#-16\n bl begin\n brk #0\n");
#else
#error "no system call numbers for this architecture"
#endif

#define AT_FDCWD (-100)
#define O_PATH_CLOEXEC (010000000 | 02000000)
#define PR_SET_DUMPABLE 4
#define SECCOMP_SET_MODE_FILTER 1
#define NEW_LISTENER (1UL << 3)
#define SIGCHLD 17
#define ENOENT 2
#define ENOTDIR 20
#define EACCES 13
#define EINTR 4
#define FAILED 126

struct filter { u16 code; unsigned char jt, jf; u32 k; };
struct program { u16 length; struct filter *filter; };
struct ruleset { u64 fs, net, scoped; };
struct beneath { u64 access; int fd; } __attribute__((packed));
struct vector { void *base; u64 length; };
struct message { void *name; u32 name_length; struct vector *parts; u64 count; void *control; u64 control_length; int flags; };
struct rights { u64 length; int level, type; int fd, padding; };

static struct filter own[4096], theirs[4096];
static char path[4352];

static u64 length_of(const char *s)
{
    u64 n = 0;
    while (s[n]) n++;
    return n;
}

static void say(const char *s) { call(WRITE, 2, (long)s, (long)length_of(s), 0, 0); }

static __attribute__((noreturn)) void leave(int code)
{
    for (;;) call(EXIT, code, 0, 0, 0, 0);
}

static __attribute__((noreturn)) void fail(const char *what)
{
    say("vestibule: the sandbox could not be closed: ");
    say(what);
    say("\n");
    leave(FAILED);
}

static long number(const char *s)
{
    long n = 0, sign = 1;
    if (*s == '-') { sign = -1; s++; }
    if (!*s) fail("a number is missing");
    for (; *s; s++) {
        if (*s < '0' || *s > '9') fail("a number is not decimal");
        n = n * 10 + (*s - '0');
    }
    return n * sign;
}

static struct program load(long fd, struct filter *into)
{
    u64 have = 0;
    struct program found;
    for (;;) {
        long got = call(READ, fd, (long)((char *)into + have), (long)(sizeof own - have), 0, 0);
        if (got == -EINTR) continue;
        if (got < 0) fail("a filter cannot be read");
        if (got == 0) break;
        have += (u64)got;
    }
    if (have == 0 || have % sizeof(struct filter) || have == sizeof own) fail("a filter has no usable size");
    call(CLOSE, fd, 0, 0, 0, 0);
    found.length = (u16)(have / sizeof(struct filter));
    found.filter = into;
    return found;
}

/* Landlock over the rules in `at` (pairs of mask and path, up to "--"). */
static void landlock(u64 fs, u64 net, u64 scoped, char **at)
{
    struct ruleset set = { fs, net, scoped };
    long ruleset, fd;
    if (!fs && !net && !scoped) return;
    ruleset = call(LL_CREATE, (long)&set, sizeof set, 0, 0, 0);
    if (ruleset < 0) fail("no Landlock ruleset");
    for (; at[0][0] != '-' || at[0][1] != '-'; at += 2) {
        struct beneath rule;
        fd = call(OPENAT, AT_FDCWD, (long)at[1], O_PATH_CLOEXEC, 0, 0);
        if (fd < 0) { say(at[1]); say(": "); fail("no such place for a Landlock rule"); }
        rule.access = (u64)number(at[0]);
        rule.fd = (int)fd;
        if (call(LL_RULE, ruleset, 1, (long)&rule, 0, 0) < 0) { say(at[1]); say(": "); fail("no Landlock rule"); }
        call(CLOSE, fd, 0, 0, 0, 0);
    }
    if (call(LL_RESTRICT, ruleset, 0, 0, 0, 0) < 0) fail("Landlock did not take");
    call(CLOSE, ruleset, 0, 0, 0, 0);
}

static void hand_over(long socket, long listener)
{
    static struct rights control;
    char byte = 'L';
    struct vector part = { &byte, 1 };
    struct message message = { 0, 0, &part, 1, &control, sizeof control, 0 };
    control.length = sizeof(u64) + 3 * sizeof(int);
    control.level = 1; /* SOL_SOCKET */
    control.type = 1;  /* SCM_RIGHTS */
    control.fd = (int)listener;
    if (call(SENDMSG, socket, (long)&message, 0x4000 /* MSG_NOSIGNAL */, 0, 0) != 1) fail("nobody takes the listener");
    call(CLOSE, listener, 0, 0, 0, 0);
    call(CLOSE, socket, 0, 0, 0, 0);
}

static __attribute__((noreturn)) void start(char **program, char **environment)
{
    const char *name = program[0], *search = 0, *part;
    char **variable;
    long error = -ENOENT;
    u64 i;
    for (i = 0; name[i]; i++)
        if (name[i] == '/') {
            error = call(EXECVE, (long)name, (long)program, (long)environment, 0, 0);
            goto failed;
        }
    for (variable = environment; *variable; variable++)
        if ((*variable)[0] == 'P' && (*variable)[1] == 'A' && (*variable)[2] == 'T' && (*variable)[3] == 'H' &&
            (*variable)[4] == '=')
            search = *variable + 5;
    for (part = search; part && *part;) {
        u64 n = 0, m = length_of(name);
        while (part[n] && part[n] != ':') n++;
        if (n && n + m + 2 < sizeof path) {
            for (i = 0; i < n; i++) path[i] = part[i];
            path[n] = '/';
            for (i = 0; i <= m; i++) path[n + 1 + i] = name[i];
            error = call(EXECVE, (long)path, (long)program, (long)environment, 0, 0);
            if (error != -ENOENT && error != -ENOTDIR && error != -EACCES) break;
        }
        part += n + (part[n] == ':');
    }
failed:
    say(name);
    say(error == -EACCES ? ": permission denied\n" : error == -ENOENT ? ": no such program\n" : ": cannot be executed\n");
    leave(127);
}

__attribute__((noreturn, used)) void begin(long *stack)
{
    long argc = stack[0], child, notify, at, status = 0;
    char **argv = (char **)(stack + 1), **environment = argv + argc + 1;
    struct program first, mine;
    u64 flags;
    for (at = 7; at < argc && !(argv[at][0] == '-' && argv[at][1] == '-' && !argv[at][2]); at++) {}
    if (argc < 9 || at + 1 >= argc || (at - 7) % 2) fail("wrong arguments");
    notify = number(argv[1]);
    first = load(number(argv[2]), theirs);
    mine = load(number(argv[3]), own);
    if (call(PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) fail("not dumpable did not take");
    child = call(CLONE, SIGCHLD, 0, 0, 0, 0);
    if (child < 0) fail("no process");
    if (child == 0) {
        landlock((u64)number(argv[4]), (u64)number(argv[5]), (u64)number(argv[6]), argv + 7);
        flags = notify >= 0 ? NEW_LISTENER : 0;
        child = call(SECCOMP, SECCOMP_SET_MODE_FILTER, (long)flags, (long)&first, 0, 0);
        if (child < 0) fail("the filter did not take");
        if (notify >= 0) hand_over(notify, child);
        start(argv + at + 1, environment);
    }
    if (notify >= 0) call(CLOSE, notify, 0, 0, 0, 0);
    if (call(SECCOMP, SECCOMP_SET_MODE_FILTER, 0, (long)&mine, 0, 0) < 0) fail("our own filter did not take");
    for (;;) {
        long ended = call(WAIT4, -1, (long)&status, 0, 0, 0);
        if (ended == child) leave(status & 0x7f ? 128 + (status & 0x7f) : (status >> 8) & 0xff);
        if (ended < 0 && ended != -EINTR) leave(FAILED);
    }
}
