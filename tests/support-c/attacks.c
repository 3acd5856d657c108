/* What a stranger's program tries against its host: one line "open: WHAT" for each attempt that succeeds. Static, so
 * that it runs in an image without libraries. `euid` prints its effective user instead: a copy with the setuid bit
 * tells whether that bit has an effect. It changes nothing where an attempt succeeds. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

static void report(const char *what, long result) {
    if (result >= 0) printf("open: %s\n", what);
}

static void calls(void) {
    char page[4096] = {0};
    struct { int number; const char *name; long a, b, c; } all[] = {
        {SYS_unshare, "unshare user", CLONE_NEWUSER, 0, 0},
        {SYS_unshare, "unshare mount", CLONE_NEWNS, 0, 0},
        {SYS_unshare, "unshare net", CLONE_NEWNET, 0, 0},
        {SYS_setns, "setns", open("/proc/self/ns/net", O_RDONLY), 0, 0},
        {SYS_add_key, "add_key", (long)"user", (long)"x", (long)page},
        {SYS_keyctl, "keyctl", 0, -3, 0},
        {SYS_bpf, "bpf", 0, (long)page, 72},
        {SYS_perf_event_open, "perf_event_open", (long)page, 0, -1},
        {SYS_userfaultfd, "userfaultfd", 0, 0, 0},
        {SYS_init_module, "init_module", (long)page, sizeof page, (long)""},
        {SYS_finit_module, "finit_module", 0, (long)"", 0},
        {SYS_delete_module, "delete_module", (long)"none", O_NONBLOCK, 0},
        {SYS_kexec_load, "kexec_load", 0, 0, 0},
        {SYS_swapon, "swapon", (long)"/dev/zero", 0, 0},
        {SYS_reboot, "reboot", 0xfee1dead, 672274793, 0x89abcdef},
        {SYS_sethostname, "sethostname", (long)"x", 1, 0},
        {SYS_acct, "acct", 0, 0, 0},
        {SYS_chroot, "chroot", (long)"/", 0, 0},
        {SYS_pivot_root, "pivot_root", (long)"/", (long)"/", 0},
        {SYS_syslog, "syslog", 10, 0, 0},
        {SYS_iopl, "iopl", 3, 0, 0},
        {SYS_fsopen, "fsopen", (long)"tmpfs", 0, 0},
        {SYS_open_tree, "open_tree", AT_FDCWD, (long)"/", 1},
        {SYS_process_vm_readv, "process_vm_readv of a stranger", 2, 0, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        /* Another process each, for what succeeds must not help the next. */
        fflush(stdout);
        pid_t child = fork();
        if (child != 0) {
            if (child > 0) while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
            continue;
        }
        if (all[i].number != SYS_process_vm_readv || kill(2, 0) == 0)
            report(all[i].name, syscall(all[i].number, all[i].a, all[i].b, all[i].c, -1L, 0L));
        fflush(stdout);
        _exit(0);
    }
}

static void mounts(void) {
    report("mount tmpfs", mount("x", "/tmp", "tmpfs", 0, ""));
    report("mount proc", mount("x", "/tmp", "proc", 0, ""));
    report("bind", mount("/", "/tmp", NULL, MS_BIND, NULL));
    report("remount /proc/sys", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
    report("remount /input", mount(NULL, "/input", NULL, MS_REMOUNT | MS_BIND, NULL));
    report("umount /proc/kcore", umount2("/proc/kcore", MNT_DETACH));
    report("umount /proc/sys", umount2("/proc/sys", MNT_DETACH));
}

static void files(void) {
    const char *written[] = {
        "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory", "/proc/sys/net/ipv4/ip_forward",
        "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/power/state",
        "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/memory/release_agent",
        "/sys/fs/cgroup/devices/devices.allow", "/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/sda", "/dev/vda",
        "/dev/nvme0n1", "/dev/loop-control", "/dev/fuse", "/dev/net/tun", "/dev/kvm", "/dev/vhost-net",
        "/input/x", "/etc/resolv.conf.d/x",
    };
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) report(written[i], open(written[i], O_WRONLY));
    const char *read_from[] = {
        "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/kmsg", "/dev/mem",
        "/sys/firmware/acpi/tables/DSDT", "/sys/kernel/debug/tracing/trace",
    };
    for (size_t i = 0; i < sizeof read_from / sizeof *read_from; i++) {
        char byte;
        int file = open(read_from[i], O_RDONLY | O_NONBLOCK);
        if (file >= 0 && read(file, &byte, 1) == 1) report(read_from[i], 0);
    }
    report("mknod block", mknod("/tmp/block", S_IFBLK | 0600, makedev(8, 0)));
    report("mknod mem", mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)));
    struct { struct file_handle head; unsigned char rest[128]; } handle = {.head.handle_bytes = 128};
    int mount_id, input = open("/input", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(input, "", &handle.head, &mount_id, AT_EMPTY_PATH) == 0)
        report("open_by_handle_at", open_by_handle_at(input, &handle.head, O_RDONLY));
}

static void network(void) {
    report("raw socket v4", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    report("raw socket v6", socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6));
    report("packet socket", socket(AF_PACKET, SOCK_RAW, 0x0300));
    /* Metadata, a router, a public resolver. A datagram socket connects wherever there is a route. */
    const uint32_t v4[] = {0xa9fea9fe, 0xc0a80001, 0x0a000001, 0xac110001, 0x08080808};
    for (size_t i = 0; i < sizeof v4 / sizeof *v4; i++) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(v4[i])};
        report("route v4", connect(socket(AF_INET, SOCK_DGRAM, 0), (void *)&to, sizeof to));
    }
    const unsigned char v6[][2] = {{0xfd, 0x00}, {0x20, 0x01}, {0x26, 0x06}};
    for (size_t i = 0; i < sizeof v6 / sizeof *v6; i++) {
        struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
        memcpy(&to.sin6_addr, v6[i], 2);
        to.sin6_addr.s6_addr[15] = 1;
        report("route v6", connect(socket(AF_INET6, SOCK_DGRAM, 0), (void *)&to, sizeof to));
    }
}

static void limits(void) {
    const int kinds[] = {RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_CORE};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct rlimit limit;
        if (getrlimit(kinds[i], &limit) != 0 || limit.rlim_max == RLIM_INFINITY) {
            printf("open: no limit %d\n", kinds[i]);
            continue;
        }
        limit.rlim_max++;
        report("raised limit", setrlimit(kinds[i], &limit));
    }
    int score = open("/proc/self/oom_score_adj", O_WRONLY);
    report("oom_score_adj", score < 0 ? -1 : write(score, "-1000", 5));
    report("nice", setpriority(PRIO_PROCESS, 0, -5));
    struct sched_param real = {.sched_priority = 1};
    report("realtime", sched_setscheduler(0, SCHED_FIFO, &real));
    report("no_new_privs off", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    for (unsigned cap = 0; cap <= 40; cap++)
        if (cap == CAP_DAC_READ_SEARCH || cap > CAP_SETUID)
            report("capability", prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 ? (long)cap : -1);
}

static void others(void) {
    DIR *proc = opendir("/proc");
    int seen = 0;
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        int pid = atoi(entry->d_name);
        if (pid <= 0) continue;
        seen++;
        if (pid != getpid() && pid != getppid() && pid != 1) report("another's process", pid);
    }
    if (seen > 3) report("many processes", seen);
    report("processes beyond the container", kill(4194303, 0));
}

int main(int count, char **words) {
    if (count > 1 && strcmp(words[1], "euid") == 0) return printf("euid %d\n", geteuid()) < 0;
    others();
    calls();
    mounts();
    files();
    network();
    limits();
    puts("tried");
    return 0;
}
