"""What an analysis could try against its sandbox. Each case is Python source that runs where ``analyse`` would, reports what
it achieved with ``out`` and ends; the test decides. ``layer`` names the wall that holds it on a complete machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kakoi.enclave.sandbox.box import Outcome

HEAD = """
import os, sys, ctypes, errno, time
L = ctypes.CDLL(None, use_errno=True)
def out(*what): os.write(3, (' '.join(map(str, what)) + '\\n').encode())
def sc(nr, *a):
    ctypes.set_errno(0)
    r = L.syscall(nr, *a)
    return 'BREACH' if r >= 0 else errno.errorcode.get(ctypes.get_errno(), '?')
def attempt(name, f):
    try:
        out(name, 'BREACH', repr(f())[:60])
    except BaseException as e:
        out(name, 'no:', type(e).__name__, str(e)[:50])
"""
TAIL = "\nos._exit(0)\n"

Check = Callable[[Outcome, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attack: its source, the wall that holds it, and how one sees that it was held."""

    name: str
    layer: str
    source: str
    held: Check
    wall: float = 12.0
    memory: int = 256
    machine: str = ""
    """Empty, or the only architecture whose instructions or numbers the source uses."""
    limits: dict[str, int] = field(default_factory=dict)
    answer_bytes: int = 200_000


def closed(_: Outcome, text: str) -> bool:
    """Something was tried, and nothing was open."""
    return bool(text.strip()) and "BREACH" not in text


def last_number(text: str) -> float:
    """The count an attack reports; an attack that was stopped before it could report did not stay within any bound."""
    words = text.split()
    return int(words[-1]) if words else float("inf")


def at_most(most: int) -> Check:
    return lambda outcome, text: outcome.status == "died" or last_number(text) <= most


CASES: list[Case] = []


def case(name: str, layer: str, source: str, held: Check = closed, **more: object) -> None:
    CASES.append(Case(name=name, layer=layer, source=HEAD + source + TAIL, held=held, **more))  # type: ignore[arg-type]


# --- exhaustion -------------------------------------------------------------------------------------------------------------
case(
    "fork bomb",
    "seccomp",
    "n = 0\ntry:\n  while n < 5000:\n    if os.fork() == 0: time.sleep(30)\n    n += 1\nexcept OSError: pass\nout('forks', n)",
    at_most(0),
)
case(
    "thread bomb",
    "rlimits",
    "import threading\nn = 0\ntry:\n  while n < 400:\n    threading.Thread(target=time.sleep, args=(20,), daemon=True).start(); n += 1\n"
    "except BaseException: pass\nout('threads', n)",
    at_most(64),
)
case(
    "fork bomb from threads",
    "seccomp",
    """
import threading
forked = []
def bomb():
    try:
        while True:
            if os.fork() == 0: time.sleep(30)
            forked.append(1)
    except OSError: pass
t = [threading.Thread(target=bomb) for _ in range(16)]
[x.start() for x in t]; [x.join() for x in t]
out('forks', len(forked))""",
    at_most(0),
)
case(
    "memory bomb on the heap",
    "rlimits",
    "b = []\ntry:\n  while len(b) < 200: b.append(bytearray(1 << 24))\nexcept MemoryError: pass\nn = len(b); del b\nout('MB', n * 16)",
    at_most(460),
    memory=64,
)
case(
    "memory bomb in shared memory",
    "seccomp",
    "import mmap\nb = []\ntry:\n  while len(b) < 100:\n    m = mmap.mmap(-1, 1 << 24, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS); m.write(b'x' * (1 << 24)); b.append(m)\n"
    "except BaseException: pass\nout('MB', len(b) * 16)",
    at_most(0),
)
case(
    "memory bomb in a memory file",
    "seccomp",
    "n = 0\ntry:\n  f = os.memfd_create('x')\n  while n < 2000: os.write(f, b'x' * (1 << 20)); n += 1\nexcept BaseException: pass\nout('MB', n)",
    at_most(0),
)
case(
    "memory bomb in every directory",
    "namespaces",
    """
total = 0
for d in ('/tmp', '/dev/shm', '/dev', '/', '/kakoi', '/kakoi/site', '/run', '/var/tmp', '/proc', '/home', '/root'):
    try:
        for i in range(100):
            with open(d + '/f%d' % i, 'wb') as f: f.write(b'x' * (4 << 20)); total += 4
    except OSError: pass
out('MB', total)""",
    at_most(32),
)
case(
    "inode bomb",
    "cgroup",
    "n = 0\ntry:\n  while n < 30000: os.close(os.open('/tmp/%d' % n, os.O_CREAT)); n += 1\nexcept OSError: pass\nout('files', n)",
    lambda outcome, text: outcome.status in ("answered", "timeout", "died"),
    wall=8.0,
    memory=64,
)
case(
    "descriptor bomb",
    "rlimits",
    "n = 0\ntry:\n  while n < 10000: os.dup(1); n += 1\nexcept OSError: pass\nout(n)",
    at_most(128),
)
case(
    "endless loop that ignores every signal",
    "parent",
    "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile True: pass",
    lambda outcome, _: outcome.status == "timeout" and outcome.seconds < 6,
    wall=1.0,
)
case(
    "processor time",
    "rlimits",
    "while True: pass",
    lambda outcome, _: outcome.status == "died" and outcome.seconds < 8,
    limits={"RLIMIT_CPU": 1},
)
case("sleep for ever", "parent", "time.sleep(1e6)", lambda outcome, _: outcome.status == "timeout", wall=1.0)
case(
    "flood of answers",
    "parent",
    "while True: os.write(3, b'x' * 65536)",
    lambda outcome, _: outcome.status == "too-much" and len(outcome.answer) <= 100_000,
    answer_bytes=100_000,
)
case(
    "flood of log lines",
    "parent",
    "for i in range(2000): os.write(1, b'x' * 65536)\nout('done')",
    lambda outcome, text: len(outcome.log) <= 65536 and "done" in text,
)
case(
    "zip bomb",
    "rlimits",
    """
import zlib
c = zlib.compressobj(1); small = b''.join(c.compress(bytes(1 << 24)) for _ in range(32)) + c.flush()
try: out('MB', len(zlib.decompress(small)) >> 20)
except MemoryError: out('MB', 0)""",
    at_most(460),
    memory=64,
)
case(
    "regular expression that never ends",
    "parent",
    "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
    lambda outcome, _: outcome.status == "timeout",
    wall=1.0,
)
case(
    "endless recursion in native code",
    "parent",
    "sys.setrecursionlimit(10**9)\ndef f(x): return f(x)\nimport functools\ng = functools.partial(lambda h: h(h), lambda h: h(h))\ng()",
    lambda outcome, text: outcome.status in ("died", "answered", "timeout") and not text.strip(),
    wall=5.0,
)
# --- out of the process -----------------------------------------------------------------------------------------------------
case(
    "ptrace the parent, the first process, a thread",
    "seccomp",
    "for p in (1, os.getppid(), os.getpid()): out('ptrace', sc(101, 16, p, 0, 0))",
    machine="x86_64",
)
case(
    "read and write another process's memory",
    "seccomp",
    """
class V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('l', ctypes.c_size_t)]
b = ctypes.create_string_buffer(16); v = V(ctypes.addressof(b), 16); w = V(0x400000, 16)
for p in (1, os.getppid()):
    for nr in (310, 311): out(sc(nr, p, ctypes.byref(v), 1, ctypes.byref(w), 1, 0))""",
    machine="x86_64",
)
case(
    "proc and sys",
    "namespaces",
    """
for f in ('/proc/1/mem', '/proc/1/environ', '/proc/1/maps', '/proc/1/root/etc/shadow', '/proc/self/mem', '/proc/self/environ', '/proc/kcore',
          '/proc/kallsyms', '/proc/cmdline', '/proc/mounts', '/proc/net/unix', '/proc/sys/kernel/core_pattern', '/proc/keys', '/proc/version',
          '/sys/kernel/notes', '/sys/class/net/lo/address', '/sys/fs/cgroup/cgroup.procs'):
    attempt(f, lambda: open(f, 'rb').read(80))
attempt('write core_pattern', lambda: open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x'))
attempt('descriptors of 1', lambda: os.listdir('/proc/1/fd'))""",
)
case(
    "signals to the parent, the first process, everybody",
    "seccomp",
    "for p in (1, os.getppid(), -1, 0): attempt('kill', lambda: os.kill(p, 9))\nout('alive')",
    lambda outcome, text: closed(outcome, text) and "alive" in text,
)
case(
    "process descriptors",
    "seccomp",
    "out(sc(434, 1, 0), sc(434, os.getppid(), 0), sc(438, 3, 0, 0), sc(424, 3, 9, 0, 0))",
    lambda _, text: text.count("EPERM") == 4,
    machine="x86_64",
)
case(
    "inherited descriptors",
    "launcher",
    """
import fcntl
found = []
for f in range(3, 4096):
    try: fcntl.fcntl(f, fcntl.F_GETFD); found.append(f)
    except OSError: pass
kinds = [os.fstat(f).st_mode & 0o170000 for f in found]
out(len(found), kinds.count(0o140000), found)""",
    lambda _, text: text.split() == ["1", "0", "[3]"],  # the answer; no socket, no data
)
case(
    "other programs",
    "seccomp",
    """
import subprocess
for c in (['/bin/sh', '-c', 'id'], ['/usr/bin/python3'], ['/usr/bin/su'], [sys.executable, '-c', '1'], ['/lib64/ld-linux-x86-64.so.2', sys.executable]):
    attempt(c[0], lambda: subprocess.run(c, capture_output=True, timeout=5))
attempt('execv', lambda: os.execv(sys.executable, ['x']))
attempt('posix_spawn', lambda: os.posix_spawn(sys.executable, ['x'], {}))
out('system', 'BREACH' if os.system('true') == 0 else 'no')""",
)
case(
    "become somebody else",
    "namespaces",
    "for f in ('setuid', 'setgid', 'seteuid'): attempt(f, lambda: getattr(os, f)(0))\nattempt('groups', lambda: os.setgroups([0]))\nout(os.getuid())",
    lambda outcome, text: closed(outcome, text) and "1000" in text,
)
case(
    "nested namespaces",
    "seccomp",
    """
out(sc(272, 0x10000000), sc(272, 0x00020000), sc(272, 0x40000000), sc(56, 0x10000000 | 17, 0, 0, 0, 0), sc(308, 0, 0))
b = ctypes.create_string_buffer(88); ctypes.memmove(b, (0x10000000).to_bytes(8, 'little'), 8)
out(sc(435, b, 88))""",
    lambda outcome, text: closed(outcome, text) and text.count("EPERM") >= 5,
    machine="x86_64",
)
case(
    "mounts",
    "seccomp",
    "out(sc(165, b'x', b'/tmp', b'tmpfs', 0, 0), sc(166, b'/kakoi', 2), sc(155, b'/tmp', b'/tmp'), sc(161, b'/tmp'), sc(430, b'tmpfs', 0),"
    " sc(428, -100, b'/kakoi', 1), sc(429, 0, 0, 0, 0, 0), sc(442, -100, b'/kakoi', 0, 0, 0))",
    lambda _, text: text.count("EPERM") == 8,
    machine="x86_64",
)
case(
    "the x32 system call table",
    "seccomp",
    "out('x32', sc(0x40000000 | 39))",
    lambda o, text: o.status == "died" and not text,
    machine="x86_64",
)
case(
    "the 32-bit system call table",
    "seccomp",
    """
import mmap
m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
m.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')
f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))
r = f(); out('BREACH' if r > 0 else 'no', r)""",
    lambda outcome, text: outcome.status == "died" or "BREACH" not in text,
    machine="x86_64",
)
case(
    "loosen seccomp, Landlock and process flags",
    "seccomp",
    "out(sc(317, 0, 0, 0), sc(317, 1, 0, 0), sc(444, 0, 0, 1), sc(446, 3, 0))\nfor option in (4, 8, 22, 23, 24, 35, 38, 39, 47, 59, 0x53564d41, 65): out(sc(157, option, 1, 0, 0, 0))",
    machine="x86_64",
)
case(
    "share memory with a new process",
    "seccomp",
    "for flags in (17, 0x100 | 17, 0x100 | 0x4000 | 17, 0x8000 | 17): out(sc(56, flags, 0, 0, 0, 0))\nout(sc(58), sc(57))",
    machine="x86_64",
)
# --- network ----------------------------------------------------------------------------------------------------------------
case(
    "sockets of every family",
    "seccomp",
    "for family in range(46):\n  for kind in (1, 2, 3, 5):\n    if sc(41, family, kind, 0) == 'BREACH': out('BREACH', family, kind)\nb = (ctypes.c_int * 2)()\nout('pair', sc(53, 1, 1, 0, b))",
    machine="x86_64",
)
case(
    "the machine's own port",
    "seccomp",
    "import socket\nattempt('loopback', lambda: socket.create_connection(('127.0.0.1', 22), 1))\nattempt('name', lambda: socket.getaddrinfo('example.org', 80))",
)
case(
    "the hypervisor's socket",
    "seccomp",
    "import socket\nattempt('vsock', lambda: socket.socket(40, 1).connect((2, 5001)))",
)
case(
    "sockets of the host without a path",
    "seccomp",
    "import socket\nattempt('abstract', lambda: socket.socket(1, 1).connect('\\0kakoi-canary'))",
)
case(
    "descriptors through a socket",
    "seccomp",
    "import socket, array\nattempt('pair', lambda: socket.socketpair())\nout(sc(46, 3, 0, 0), sc(47, 3, 0, 0), sc(47, 4, 0, 0))",
    machine="x86_64",
)
case(
    "io_uring",
    "seccomp",
    "b = ctypes.create_string_buffer(120)\nout(sc(425, 8, b), sc(426, 3, 1, 0, 0, 0, 0), sc(427, 3, 0, 0, 0))",
    lambda _, text: text.count("EPERM") == 3,
    machine="x86_64",
)
# --- kernel surface ---------------------------------------------------------------------------------------------------------
_REST = (
    "bpf=(321,0,0,0), perf=(298,0,0,-1,-1,0), userfaultfd=(323,1), keyctl=(250,0,-3,1), add_key=(248,b'user',b'a',b'b',1,-3), request_key=(249,b'user',b'a',0,0), "
    "kexec=(246,0,0,0,0), kexec_file=(320,0,0,0,0,0), init_module=(175,0,0,b''), finit_module=(313,3,b'',0), delete_module=(176,b'x',0), iopl=(172,3), ioperm=(173,0,1,1), modify_ldt=(154,0,0,0), "
    "personality=(135,0x40000), acct=(163,0), swapon=(167,b'/tmp/x',0), reboot=(169,0xfee1dead,672274793,0,0), quotactl=(179,0,0,0,0), fanotify=(300,0,0), "
    "open_by_handle=(304,-100,0,0), name_to_handle=(303,-100,b'/',0,0,0), kcmp=(312,1,1,0,0,0), move_pages=(279,0,0,0,0,0,0), migrate_pages=(256,0,0,0,0), mbind=(237,0,0,0,0,0,0), set_mempolicy=(238,0,0,0), "
    "syslog=(103,3,0,0), settimeofday=(164,0,0), clock_settime=(227,0,0), adjtimex=(159,0), sethostname=(170,b'x',1), setdomainname=(171,b'x',1), memfd_secret=(447,0), memfd_create=(319,b'x',0), "
    "msgget=(68,0,0o1777), shmget=(29,0,4096,0o1777), semget=(64,0,1,0o1777), mq_open=(240,b'x',0o102,0o600,0), inotify=(294,0), timerfd=(283,0,0), signalfd=(289,-1,0,8,0), "
    "splice=(275,0,0,0,0,0,0), vmsplice=(278,0,0,0,0), tee=(276,0,0,0,0), sendfile=(40,3,4,0,1), copy_file_range=(326,3,0,3,0,1,0), setpriority=(141,0,0,-20), sched_setaffinity=(203,0,8,b'\\\\xff'*8), "
    "sched_setscheduler=(144,0,1,b'\\\\0'*8), ioprio=(251,1,0,0), setrlimit=(160,7,0), prlimit=(302,1,7,0,0), mlock=(149,0,4096), mlockall=(151,3), process_madvise=(440,0,0,0,0,0), setpgid=(109,0,0), "
    "setsid=(112,), chmod=(90,b'/tmp',0o777), chown=(92,b'/tmp',0,0), mknod=(133,b'/tmp/n',0o20666,0x103), mkfifo=(133,b'/tmp/p',0o10666,0), symlink=(88,b'/etc/shadow',b'/tmp/s'), "
    "link=(86,b'/kakoi/app',b'/tmp/l'), setxattr=(188,b'/tmp',b'user.x',b'x',1,0), capset=(126,0,0), landlock=(444,0,0,1), pkey_alloc=(330,0,0), uselib=(134,b'x'), ustat=(136,0,0), "
    "lookup_dcookie=(212,0,0,0), vhangup=(153,), remap_file_pages=(216,0,0,0,0,0), cachestat=(451,0,0,0,0), map_shadow_stack=(453,0,0,0), futex_waitv=(449,0,0,0,0,0), set_mempolicy_home_node=(450,0,0,0,0), "
    "epoll_pwait2=(441,0,0,0,0,0,0), close_range=(436,100,200,0), openat2=(437,-100,b'/',0,0), landlock_restrict=(446,0,0), quotactl_fd=(443,0,0,0,0), statmount=(457,0,0,0,0), listmount=(458,0,0,0,0), lsm_set=(460,0,0,0,0)"
)
case(
    "ninety other system calls",
    "seccomp",
    f"t = dict({_REST.replace(chr(92) * 2, chr(92))})\nfor name, call in t.items():\n  r = sc(*call)\n  if r != 'EPERM': out(name, 'BREACH', r)\nout(len(t), 'tried')",
    lambda outcome, text: closed(outcome, text) and last_number(text.replace("tried", "")) > 80,
    machine="x86_64",
)
case(
    "POSIX shared memory",
    "namespaces",
    "from multiprocessing import shared_memory\nattempt('shm', lambda: shared_memory.SharedMemory(create=True, size=4096))\nattempt('dev/shm', lambda: os.listdir('/dev/shm'))",
)
# --- files ------------------------------------------------------------------------------------------------------------------
case(
    "files, users and environment of the machine",
    "namespaces",
    "for f in ('/etc/shadow', '/etc/passwd', '/etc', '/root', '/home', '/var/lib', '/boot', '/usr', '/bin', '/work', '/mnt', '/opt', '/srv', '/media', '/dev/null', '/dev/urandom'):\n"
    "  attempt(f, lambda: os.listdir(f) if os.path.isdir(f) else open(f).read(20))\nout(dict(os.environ))",
    lambda outcome, text: closed(outcome, text) and "CANARY" not in text,
)
case(
    "the keeper's code and what only it needs",
    "namespaces",
    "import importlib\nfor m in ('kakoi.enclave.keeper', 'kakoi.enclave.gate', 'kakoi.core.crypto', 'kakoi.wire.messages', 'cryptography', 'httpx', 'pip'):\n"
    "  attempt(m, lambda: importlib.import_module(m))",
)
case(
    "writing outside its own directory",
    "namespaces",
    "for f in ('/x', '/kakoi/x', '/kakoi/app/kakoi/__init__.py', '/kakoi/python/lib/x', '/kakoi/lib/libc.so.6', os.__file__, '/kakoi/site/numpy/__init__.py', '/etc/x', '/dev/x', '/lib64/x'):\n"
    "  attempt(f, lambda: open(f, 'ab').write(b'x'))\nattempt('rename', lambda: os.rename('/kakoi/app/kakoi/__init__.py', '/tmp/r'))\nattempt('unlink', lambda: os.unlink(os.__file__))",
)
case(
    "links, pipes, devices, holes",
    "seccomp",
    """
attempt('symlink', lambda: os.symlink('/etc/shadow', '/tmp/s')); attempt('hard link', lambda: os.link(os.__file__, '/tmp/h'))
attempt('own hard link', lambda: (open('/tmp/a', 'w').close(), os.link('/tmp/a', '/tmp/h2'))); attempt('fifo', lambda: os.mkfifo('/tmp/f'))
attempt('device', lambda: os.mknod('/tmp/d', 0o20666, 0x103)); attempt('chmod', lambda: os.chmod('/tmp', 0o4777))
f = os.open('/tmp/sparse', os.O_CREAT | os.O_WRONLY)
attempt('sparse terabyte', lambda: os.ftruncate(f, 1 << 40))""",
)
case(
    "raise its own limits",
    "seccomp",
    "import resource\nfor r in ('NPROC', 'DATA', 'FSIZE', 'CPU', 'CORE', 'NOFILE', 'AS', 'MEMLOCK'):\n  attempt(r, lambda: resource.setrlimit(getattr(resource, 'RLIMIT_' + r), (resource.RLIM_INFINITY,) * 2))",
)
case(
    "terminals and devices",
    "namespaces",
    "import fcntl\nattempt('tiocsti', lambda: fcntl.ioctl(0, 0x5412, b'x'))\nattempt('tioclinux', lambda: fcntl.ioctl(1, 0x541c, b'x'))\n"
    "for d in ('tty', 'kmsg', 'kvm', 'vda', 'mem', 'tpm0', 'sgx_enclave', 'tdx_guest', 'sev-guest', 'nsm', 'vport0p1', 'console', 'ptmx', 'fuse', 'null'):\n  attempt(d, lambda: open('/dev/' + d))",
)
case(
    "code before the walls",
    "launcher",
    "out(os.environ.get('LD_PRELOAD'), os.environ.get('PYTHONPATH'), [m for m in sys.modules if 'custom' in m], sys.flags.isolated, sys.flags.no_site, sys.dont_write_bytecode)",
    lambda _, text: text.strip() == "None None [] 1 1 True",
)
case(
    "columns that the analysis may not read",
    "engine",
    """
import gc
for f in range(3, 4096):
    try: size = os.fstat(f).st_size
    except OSError: continue
    out('descriptor', f, 'BREACH' if size else 'no: a pipe')
found = [o for o in gc.get_objects() if type(o).__module__.startswith(('pyarrow', 'mmap')) and 'hidden' in repr(o)[:10000]]
out('objects', 'BREACH' if found else 'no')""",
)
case(
    "signals and leases through descriptors",
    "seccomp",
    "import fcntl\nfor cmd in (8, 10, 15, 1024, 1026, 1031, 1033, 1036): attempt(cmd, lambda: fcntl.fcntl(3, cmd, 1))",
)
case(
    "code that writes code",
    "Landlock",
    """
open('/tmp/evil.so', 'wb').write(open('/kakoi/lib/libm.so.6', 'rb').read())
open('/tmp/evil.py', 'w').write('import os')
os.chdir('/tmp')
attempt('run', lambda: os.execv('/tmp/evil.so', ['x']))
attempt('write beside the library', lambda: open('/kakoi/lib/evil.so', 'wb'))""",
)
case(
    "a daemon that outlives the job",
    "namespaces",
    "import threading\nattempt('fork', lambda: os.fork())\nthreading.Thread(target=time.sleep, args=(40,)).start()\nout('main')",
    lambda _, text: "main" in text and "BREACH" not in text,
)
