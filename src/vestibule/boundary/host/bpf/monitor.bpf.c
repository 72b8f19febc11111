// SPDX-License-Identifier: MIT OR GPL-2.0-only
// The runtime monitor's programs in the kernel (the kernel lends its helpers to GPL-compatible programs only, so this
// one file may be used under either licence). Rules they keep:
// 1. Only processes of watched control groups are looked at: `watched` holds their ids, `settings` their depth.
// 2. An event that finds no room in the ring is counted in its group's entry, never lost in silence.
// 3. Paths are walked from the kernel's own objects (file, mounts) wherever it has them at that moment, not taken from
//    what a program passed. What was cut, and what could not be told for certain, says so in its flags.
// 4. The address programs let a watched group reach loopback only, whatever other wall stands.
//
// CO-RE: only the fields below are named; libbpf finds their places in the running kernel's BTF
// (`preserve_access_index`), so no kernel's headers are needed. Built by tools/build_bpf.py; monitor.<machine>.o is shipped.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define CORE __attribute__((preserve_access_index))

struct qstr { const unsigned char *name; } CORE;
struct super_block { __u32 s_dev; } CORE;
struct inode { unsigned short i_mode; unsigned int i_nlink; unsigned long i_ino; struct super_block *i_sb; } CORE;
struct dentry { struct dentry *d_parent; struct qstr d_name; } CORE;
struct vfsmount { struct dentry *mnt_root; } CORE;
struct mount { struct mount *mnt_parent; struct dentry *mnt_mountpoint; struct vfsmount mnt; } CORE;
struct path { struct vfsmount *mnt; struct dentry *dentry; } CORE;
struct file { unsigned int f_mode; struct path f_path; struct inode *f_inode; void *private_data; } CORE;
struct fdtable { unsigned int max_fds; struct file **fd; } CORE;
struct files_struct { struct fdtable *fdt; } CORE;
struct fs_struct { struct path pwd; } CORE;
struct mm_struct { unsigned long arg_start, arg_end; } CORE;
struct task_struct {
	int tgid;
	struct task_struct *real_parent;
	struct files_struct *files;
	struct fs_struct *fs;
	struct mm_struct *mm;
} CORE;
struct linux_binprm { struct file *file; } CORE;
struct in6_addr { union { __u32 u6_addr32[4]; } in6_u; } CORE;
struct sock_common { unsigned short skc_family; __u32 skc_daddr; __u16 skc_dport; struct in6_addr skc_v6_daddr; } CORE;
struct kernfs_node { __u64 id; } CORE;
struct cgroup { struct kernfs_node *kn; } CORE;
struct sock_cgroup_data { struct cgroup *cgroup; } CORE;
struct sock { struct sock_common __sk_common; struct sock_cgroup_data sk_cgrp_data; } CORE;
struct socket { struct sock *sk; } CORE;

#if defined(__TARGET_ARCH_x86)
struct pt_regs { unsigned long r10, dx, si, di, orig_ax; } CORE;
#define NUMBER(regs) ((long)BPF_CORE_READ(regs, orig_ax))
#define ARG0(regs) BPF_CORE_READ(regs, di)
#define ARG1(regs) BPF_CORE_READ(regs, si)
#define ARG2(regs) BPF_CORE_READ(regs, dx)
#define ARG3(regs) BPF_CORE_READ(regs, r10)
enum {
	NR_open = 2, NR_connect = 42, NR_clone = 56, NR_truncate = 76, NR_rename = 82, NR_rmdir = 84, NR_creat = 85,
	NR_link = 86, NR_unlink = 87, NR_symlink = 88, NR_ptrace = 101, NR_setuid = 105, NR_setgid = 106,
	NR_setreuid = 113, NR_setregid = 114, NR_setresuid = 117, NR_setresgid = 119, NR_setfsuid = 122,
	NR_setfsgid = 123, NR_mknod = 133, NR_pivot_root = 155, NR_chroot = 161, NR_mount = 165, NR_umount2 = 166,
	NR_init_module = 175, NR_openat = 257, NR_mknodat = 259, NR_unlinkat = 263, NR_renameat = 264, NR_linkat = 265,
	NR_symlinkat = 266, NR_unshare = 272, NR_open_by_handle_at = 304, NR_setns = 308, NR_finit_module = 313,
	NR_renameat2 = 316, NR_bpf = 321, NR_io_uring_setup = 425, NR_openat2 = 437,
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs { __u64 regs[31]; __u64 orig_x0; int syscallno; } CORE;
#define NUMBER(regs) ((long)BPF_CORE_READ(regs, syscallno))
#define ARG0(regs) BPF_CORE_READ(regs, orig_x0)
#define ARG1(regs) BPF_CORE_READ(regs, regs[1])
#define ARG2(regs) BPF_CORE_READ(regs, regs[2])
#define ARG3(regs) BPF_CORE_READ(regs, regs[3])
enum {
	NR_mknodat = 33, NR_unlinkat = 35, NR_symlinkat = 36, NR_linkat = 37, NR_renameat = 38, NR_umount2 = 39,
	NR_mount = 40, NR_pivot_root = 41, NR_truncate = 45, NR_chroot = 51, NR_openat = 56, NR_init_module = 105,
	NR_unshare = 97, NR_ptrace = 117, NR_setregid = 143, NR_setgid = 144, NR_setreuid = 145, NR_setuid = 146,
	NR_setresuid = 147, NR_setresgid = 149, NR_setfsuid = 151, NR_setfsgid = 152, NR_connect = 203, NR_clone = 220,
	NR_open_by_handle_at = 265, NR_setns = 268, NR_finit_module = 273, NR_renameat2 = 276, NR_bpf = 280,
	NR_io_uring_setup = 425, NR_openat2 = 437,
};
#endif

enum kind {
	EXEC = 1, WRITE = 2, UNLINK = 3, RENAME_FROM = 4, RENAME_TO = 5, LINK = 6, TRUNCATE = 7, CONNECT = 8, UNIX = 9,
	CALL = 10, MET = 11,
};
enum flag {
	CUT = 1,       /* a path or an argument list is longer than what is kept */
	DETACHED = 2,  /* the file hangs below no mount: memory only, or unmounted */
	UNLINKED = 4,  /* the file has no name any more */
	RACED = 8,     /* asked for writing, but another file stood there when we looked */
	SOCKET_IN = 16, /* standard input is an internet socket */
	REFUSED = 32,  /* refused by the programs here */
	DATAGRAM = 64,
	RELATIVE = 128, /* the second text continues the path of a folder */
};

#define PATH_ROOM 4096
#define NAME_ROOM 256
#define TEXT_ROOM 1024
#define PARTS 64

struct event {
	__u64 time, group, inode;
	__u32 kind, flags, pid, parent, dev, number;
	__s32 result;
	__u32 port;
	__u64 arguments[2];
	char comm[16];
	__u32 path, text; /* bytes of the two texts that follow each other in data */
	char data[PATH_ROOM + NAME_ROOM + TEXT_ROOM];
};
#define HEAD __builtin_offsetof(struct event, data)

struct group { __u64 events, drops; };

struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 8 << 20); } ring SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct group);
} watched SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); } settings SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3); /* programs that can run while another does have places of their own */
	__type(key, __u32);
	__type(value, struct event);
} scratch SEC(".maps");

static __always_inline struct group *mine(__u64 *id)
{
	__u32 zero = 0, *level = bpf_map_lookup_elem(&settings, &zero);

	if (!level)
		return 0;
	*id = bpf_get_current_ancestor_cgroup_id(*level);
	return bpf_map_lookup_elem(&watched, id);
}

static __always_inline struct event *begin(__u32 place, __u32 kind, __u64 id)
{
	struct event *e = bpf_map_lookup_elem(&scratch, &place);
	struct task_struct *task = (void *)bpf_get_current_task();

	if (!e)
		return 0;
	e->time = bpf_ktime_get_boot_ns();
	e->group = id;
	e->kind = kind;
	e->flags = 0;
	e->inode = 0;
	e->dev = 0;
	e->number = 0;
	e->result = 0;
	e->port = 0;
	e->arguments[0] = 0;
	e->arguments[1] = 0;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->parent = BPF_CORE_READ(task, real_parent, tgid);
	e->path = 0;
	e->text = 0;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	return e;
}

static __always_inline void end(struct group *group, struct event *e)
{
	__u64 size = HEAD + e->path + e->text;

	__sync_fetch_and_add(&group->events, 1);
	if (size > sizeof(*e) || bpf_ringbuf_output(&ring, e, size, 0))
		__sync_fetch_and_add(&group->drops, 1);
}

struct walk { struct event *e; struct mount *m; struct dentry *d; __u32 at, end; };

/* One step of a walk: a name, or over the edge of a mount. A loop of the kernel's, so that the verifier looks once. */
static long step(__u64 index, struct walk *w)
{
	struct mount *m = w->m;
	struct dentry *d = w->d, *root = BPF_CORE_READ(m, mnt.mnt_root), *parent = BPF_CORE_READ(d, d_parent);
	__u32 at = w->at;
	long n;

	if (d == root) {
		struct mount *up = BPF_CORE_READ(m, mnt_parent);

		if (up == m || !up) {
			w->end = 1;
			return 1;
		}
		w->d = BPF_CORE_READ(m, mnt_mountpoint);
		w->m = up;
		return 0;
	}
	if (at > PATH_ROOM - NAME_ROOM)
		return 1;
	n = bpf_probe_read_kernel_str(&w->e->data[at], NAME_ROOM, BPF_CORE_READ(d, d_name.name));
	if (n < 0)
		return 1;
	w->at = at + (n & (NAME_ROOM * 2 - 1));
	if (d == parent) {
		w->e->flags |= DETACHED;
		w->end = 1;
		return 1;
	}
	w->d = parent;
	return 0;
}

/* The names from a place up to the root of its mount namespace, the last first, each with its NUL. */
__noinline int walk(__u64 v, __u64 d)
{
	__u32 zero = 0;
	struct walk w = {.e = bpf_map_lookup_elem(&scratch, &zero), .d = (void *)d};

	if (!w.e)
		return 0;
	w.m = (void *)(v - bpf_core_field_offset(struct mount, mnt));
	bpf_loop(PARTS, step, &w, 0);
	if (!w.end)
		w.e->flags |= CUT;
	w.e->path = w.at;
	return 0;
}

static __always_inline struct file *file_of(struct task_struct *task, long fd)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **at = BPF_CORE_READ(table, fd), *found = 0;

	if (fd < 0 || fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&found, sizeof(found), &at[fd]);
	return found;
}

static __always_inline void about(struct event *e, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	e->inode = BPF_CORE_READ(inode, i_ino);
	e->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	if (!BPF_CORE_READ(inode, i_nlink))
		e->flags |= UNLINKED;
	walk((__u64)BPF_CORE_READ(file, f_path.mnt), (__u64)BPF_CORE_READ(file, f_path.dentry));
}

static __always_inline void text(struct event *e, const void *from, __u32 size, int string)
{
	__u32 at = e->path;
	long n;

	if (at > PATH_ROOM)
		return;
	if (string) {
		n = bpf_probe_read_user_str(&e->data[at], TEXT_ROOM, from);
		if (n == TEXT_ROOM)
			e->flags |= CUT;
		if (n > 0)
			e->text = n & (TEXT_ROOM * 2 - 1);
		return;
	}
	if (size > TEXT_ROOM - 1) {
		size = TEXT_ROOM - 1;
		e->flags |= CUT;
	}
	size &= TEXT_ROOM - 1;
	if (!bpf_probe_read_user(&e->data[at], size, from))
		e->text = size;
}

SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	struct linux_binprm *bprm = (void *)ctx->args[2];
	struct group *group;
	struct event *e;
	struct file *in;
	unsigned long start;
	__u64 id;

	group = mine(&id);
	if (!group || !(e = begin(0, EXEC, id)))
		return 0;
	about(e, BPF_CORE_READ(bprm, file));
	in = file_of(task, 0);
	if (in && (BPF_CORE_READ(in, f_inode, i_mode) & 0170000) == 0140000) {
		struct socket *sock = BPF_CORE_READ(in, private_data);
		unsigned short family = BPF_CORE_READ(sock, sk, __sk_common.skc_family);

		if (family == 2 || family == 10)
			e->flags |= SOCKET_IN;
	}
	start = BPF_CORE_READ(task, mm, arg_start);
	text(e, (void *)start, BPF_CORE_READ(task, mm, arg_end) - start, 0);
	end(group, e);
	return 0;
}

static __always_inline void on_open(struct pt_regs *regs, long number, long result)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 id, asked = 0;
	struct group *group;
	struct file *file;
	struct event *e;
	int writes, raced;

	if (result < 0 || !(group = mine(&id)))
		return;
	if (number == NR_openat)
		asked = ARG2(regs);
#ifdef __TARGET_ARCH_x86
	else if (number == NR_open)
		asked = ARG1(regs);
	else if (number == NR_creat)
		asked = 1;
#endif
	else if (number == NR_openat2)
		bpf_probe_read_user(&asked, sizeof(asked), (void *)ARG2(regs));
	file = file_of(task, result);
	writes = file && (BPF_CORE_READ(file, f_mode) & 2);
	raced = !writes && (asked & 3) && !(asked & 010000000);
	if (!writes && !raced)
		return;
	if (writes && (BPF_CORE_READ(file, f_inode, i_mode) & 0170000) != 0100000)
		return;
	e = begin(0, WRITE, id);
	if (!e)
		return;
	e->number = number;
	e->result = result;
	e->arguments[0] = asked;
	if (raced)
		e->flags |= RACED;
	else
		about(e, file);
	end(group, e);
}

/* A path that a program named: the folder it starts from as the kernel has it, and the program's own text. */
__noinline int on_path(__u64 registers, __u32 kind, __u32 which, __s32 folder)
{
	struct pt_regs *regs = (void *)registers;
	struct task_struct *task = (void *)bpf_get_current_task();
	struct group *group;
	struct event *e;
	void *from;
	char first = 0;
	__u64 id;

	group = mine(&id);
	if (!group || !(e = begin(0, kind, id)))
		return 0;
	from = (void *)(which == 0 ? ARG0(regs) : which == 1 ? ARG1(regs) : which == 2 ? ARG2(regs) : ARG3(regs));
	e->number = NUMBER(regs);
	bpf_probe_read_user(&first, 1, from);
	if (first != '/') {
		e->flags |= RELATIVE;
		if (folder == -100) {
			walk((__u64)BPF_CORE_READ(task, fs, pwd.mnt), (__u64)BPF_CORE_READ(task, fs, pwd.dentry));
		} else {
			struct file *at = file_of(task, folder);

			if (at)
				walk((__u64)BPF_CORE_READ(at, f_path.mnt), (__u64)BPF_CORE_READ(at, f_path.dentry));
			else
				e->flags |= RACED;
		}
	}
	text(e, from, 0, 1);
	end(group, e);
	return 0;
}

static __always_inline void on_call(struct pt_regs *regs, long number, long result)
{
	struct group *group;
	struct event *e;
	__u64 id;

	group = mine(&id);
	if (!group || !(e = begin(0, CALL, id)))
		return;
	e->number = number;
	e->result = result;
	e->arguments[0] = ARG0(regs);
	e->arguments[1] = ARG1(regs);
	end(group, e);
}

static __always_inline void on_unix(struct pt_regs *regs, long result)
{
	unsigned short family = 0;
	struct group *group;
	struct event *e;
	void *from = (void *)ARG1(regs);
	__u32 size = ARG2(regs);
	__u64 id;

	group = mine(&id);
	bpf_probe_read_user(&family, sizeof(family), from);
	/* Internet addresses are told by the address programs, which see the kernel's own copy. */
	if (!group || family == 2 || family == 10 || !(e = begin(0, UNIX, id)))
		return;
	e->result = result;
	e->port = family;
	if (size > 110)
		size = 110;
	if (size > 2)
		text(e, from + 2, size - 2, 0);
	end(group, e);
}

SEC("raw_tp/sys_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *regs = (void *)ctx->args[0];
	long result = ctx->args[1], number = NUMBER(regs);

	switch (number) {
	case NR_openat:
	case NR_openat2:
#ifdef __TARGET_ARCH_x86
	case NR_open:
	case NR_creat:
#endif
		on_open(regs, number, result);
		return 0;
	case NR_connect:
		on_unix(regs, result);
		return 0;
	case NR_clone:
		if (ARG0(regs) & 0x7e020000)
			on_call(regs, number, result);
		return 0;
	case NR_ptrace:
	case NR_setuid:
	case NR_setgid:
	case NR_setreuid:
	case NR_setregid:
	case NR_setresuid:
	case NR_setresgid:
	case NR_setfsuid:
	case NR_setfsgid:
	case NR_pivot_root:
	case NR_chroot:
	case NR_mount:
	case NR_umount2:
	case NR_unshare:
	case NR_setns:
	case NR_init_module:
	case NR_finit_module:
	case NR_bpf:
	case NR_io_uring_setup:
	case NR_open_by_handle_at:
		on_call(regs, number, result);
		return 0;
	}
	if (result < 0)
		return 0;
	switch (number) {
	case NR_unlinkat:
		on_path((__u64)regs, UNLINK, 1, ARG0(regs));
		break;
	case NR_renameat:
	case NR_renameat2:
		on_path((__u64)regs, RENAME_FROM, 1, ARG0(regs));
		on_path((__u64)regs, RENAME_TO, 3, ARG2(regs));
		break;
	case NR_linkat:
		on_path((__u64)regs, LINK, 3, ARG2(regs));
		break;
	case NR_symlinkat:
		on_path((__u64)regs, LINK, 2, ARG1(regs));
		break;
	case NR_mknodat:
		on_path((__u64)regs, LINK, 1, ARG0(regs));
		break;
	case NR_truncate:
		on_path((__u64)regs, TRUNCATE, 0, -100);
		break;
#ifdef __TARGET_ARCH_x86
	case NR_unlink:
	case NR_rmdir:
		on_path((__u64)regs, UNLINK, 0, -100);
		break;
	case NR_rename:
		on_path((__u64)regs, RENAME_FROM, 0, -100);
		on_path((__u64)regs, RENAME_TO, 1, -100);
		break;
	case NR_link:
	case NR_symlink:
		on_path((__u64)regs, LINK, 1, -100);
		break;
	case NR_mknod:
		on_path((__u64)regs, LINK, 0, -100);
		break;
#endif
	}
	return 0;
}

static __always_inline int on_address(struct bpf_sock_addr *ctx, int six, int message)
{
	__u32 address[4] = {0, 0, 0, 0};
	struct group *group;
	struct event *e;
	__u64 id;
	int ours;

	if (six) {
		address[0] = ctx->user_ip6[0];
		address[1] = ctx->user_ip6[1];
		address[2] = ctx->user_ip6[2];
		address[3] = ctx->user_ip6[3];
		ours = !address[0] && !address[1] &&
		       ((!address[2] && (!address[3] || address[3] == __builtin_bswap32(1))) ||
			(address[2] == __builtin_bswap32(0xffff) && (address[3] & 0xff) == 127));
	} else {
		address[0] = ctx->user_ip4;
		ours = (address[0] & 0xff) == 127 || !address[0];
	}
	group = mine(&id);
	if (group && (e = begin(1, CONNECT, id))) {
		e->flags = (ours ? 0 : REFUSED) | (ctx->type == 2 ? DATAGRAM : 0);
		e->arguments[0] = message;
		e->port = __builtin_bswap16(ctx->user_port);
		e->number = six ? 10 : 2;
		__builtin_memcpy(e->data, address, sizeof(address));
		e->text = sizeof(address);
		end(group, e);
	}
	return ours;
}

/* A TCP connection that came about: told by the socket's own group, for the task of the moment may be another. */
SEC("raw_tp/inet_sock_set_state")
int on_state(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (void *)ctx->args[0];
	struct group *group;
	struct event *e;
	__u32 two = 2;
	__u64 id;

	if (ctx->args[1] != 2 || ctx->args[2] != 1) /* from TCP_SYN_SENT to TCP_ESTABLISHED */
		return 0;
	id = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
	group = bpf_map_lookup_elem(&watched, &id);
	if (!group || !(e = begin(two, MET, id)))
		return 0;
	e->number = BPF_CORE_READ(sk, __sk_common.skc_family);
	e->port = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (e->number == 10)
		bpf_core_read(e->data, 16, &sk->__sk_common.skc_v6_daddr);
	else
		bpf_core_read(e->data, 4, &sk->__sk_common.skc_daddr);
	e->text = 16;
	end(group, e);
	return 0;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	return on_address(ctx, 0, 0);
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	return on_address(ctx, 1, 0);
}

SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	return on_address(ctx, 0, 1);
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	return on_address(ctx, 1, 1);
}
