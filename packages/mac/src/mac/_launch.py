"""Starts a model worker inside its sandbox.

Run by the platform's own interpreter (`python -I -S _launch.py FD`), never by the model's: a .pth file or a
sitecustomize in a model's environment runs as soon as that interpreter starts, so the sandbox must be in force before.
Standard library only. What to start arrives as one frame on the socket FD, not as an argument, because a model's
environment variables may be secret and arguments can be read by everyone on the machine.

What a worker may do, where the kernel has Landlock: read the system's libraries, its interpreter, its environment and
its artifact; read and write its own temporary folder; nothing else. Started by root it also runs as another user.
A seccomp filter takes away what Landlock does not govern, above all new Unix sockets: the platform's control sockets,
and a container engine's, cannot be connected to, whoever owns them. IP networking stays: models may call services.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import socket
import struct
import sys
import zlib
from typing import Any

FIRST_UID = 61184  # the range that systemd, too, gives to services without a user of their own
UIDS = 4336

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/proc", "/sys/devices/system")
# /etc file by file: the right to read past file modes (see _become_another_user) would open its secrets.
SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)
DEVICES_READ = ("/dev/random", "/dev/urandom")
DEVICES_WRITTEN = ("/dev/null", "/dev/zero", "/dev/full")
# Not the whole prefix: an interpreter built with --prefix=$HOME would open the home folder.
INTERPRETER_FOLDERS = ("bin", "lib", "lib32", "lib64", "libexec", "include", "share", "ssl", "etc")

KEPT_VARIABLES = ("PATH", "LANG", "LANGUAGE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

# <linux/landlock.h>: rights by the ABI version that brought them
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
ABI_1 = (1 << 13) - 1
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = EXECUTE | READ_FILE | READ_DIR
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1 << 0, 1 << 1
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
RULE_PATH_BENEATH = 1

# <linux/prctl.h>, <linux/capability.h>
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 8, 24, 38, 47
PR_SET_SECCOMP, PR_CAPBSET_READ, SECCOMP_MODE_FILTER = 22, 23, 2
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_READ_SEARCH = 2
SIGKILL = 9


class LaunchError(Exception):
    """Why a worker cannot be started; told to the parent."""


def main() -> None:
    if sys.argv[1] == "--describe":  # with a folder: enter the sandbox, say what holds, and end
        plan = {"environment": sys.prefix, "artifact": sys.prefix, "temporary": sys.argv[2]}
        print(enter_sandbox(plan, sys.executable))
        return
    fd = int(sys.argv[1])
    channel = socket.socket(fileno=fd)
    plan = _receive(channel)
    try:
        _close_others(fd)
        python = os.path.join(plan["environment"], "bin", "python")
        if not os.access(python, os.X_OK):
            raise LaunchError("The environment %s has no interpreter. Build it again." % plan["environment"])
        variables = worker_variables(plan, dict(os.environ))
        holds = enter_sandbox(plan, python)
        _send(channel, {"do": "sandbox", "holds": holds})
        channel.detach()
        os.set_inheritable(fd, True)
        os.chdir(plan["temporary"])
        # -I: an artifact's own json.py or a PYTHONPATH must not take the place of what the worker imports.
        os.execve(python, [python, "-I", "-B", "-u", "-m", "mac._worker", str(fd)], variables)
    except (LaunchError, OSError) as failed:
        message = {"do": "failed", "id": None, "error": "LaunchError", "message": str(failed), "traceback": ""}
        with socket.socket(fileno=fd) if channel.fileno() < 0 else channel as parent:
            _send(parent, message)
        sys.exit(1)


def worker_variables(plan: dict[str, Any], inherited: dict[str, str]) -> dict[str, str]:
    """The environment variables of the worker: a few of the machine's, threads, folders, and the model's own.

    Nothing named BETTONG_* reaches a model, wherever it comes from.
    """
    kept = {k: v for k, v in inherited.items() if k in KEPT_VARIABLES or k.startswith("LC_")}
    path = kept.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    kept["PATH"] = os.path.join(plan["environment"], "bin") + os.pathsep + path
    kept.update({name: str(plan["threads"]) for name in THREAD_VARIABLES})
    kept.update(plan["variables"])
    kept.update({"TMPDIR": plan["temporary"], "HOME": plan["temporary"], "VIRTUAL_ENV": plan["environment"]})
    return {k: v for k, v in kept.items() if not k.startswith("BETTONG_")}


def enter_sandbox(plan: dict[str, Any], python: str) -> str:
    """Give up all rights that a worker does not need; what holds now, in one line.

    Raises:
        LaunchError: the kernel offers a restriction and then refuses it; nothing is started half-restricted.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold request rows
    if not sys.platform.startswith("linux"):
        return "no sandbox on this system; same user as the server"
    libc = ctypes.CDLL(None, use_errno=True)
    abi = landlock_abi(libc)
    folders = [plan["environment"], plan["artifact"], *interpreter_folders(plan["environment"], python)]
    user = _become_another_user(libc, plan, folders, confined=abi > 0) if os.getuid() == 0 else ""
    _prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
    if abi:
        _restrict_files(libc, abi, folders, plan["temporary"])
    filtered = _filter_calls(libc, own_user=user.startswith("uid"))
    _prctl(libc, PR_SET_PDEATHSIG, SIGKILL)  # after the change of user, which clears it
    parts = ["Landlock ABI %d" % abi if abi else "no Landlock in this kernel", "seccomp" if filtered else "no seccomp"]
    if not abi:
        return "%s, %s; %s" % (parts[0], parts[1], user or "same user as the server")
    return ", ".join(parts) + (", " + user if user.startswith("uid") else "; " + (user or "same user as the server"))


# --- files ----------------------------------------------------------------------------------------------------------


def interpreter_folders(environment: str, python: str) -> list[str]:
    """The folders of the installations that the environment's interpreter belongs to."""
    prefixes = [os.path.dirname(os.path.dirname(os.path.realpath(python)))]
    try:
        with open(os.path.join(environment, "pyvenv.cfg"), encoding="utf-8") as config:
            lines = [line.partition("=") for line in config]
    except OSError:
        lines = []
    prefixes += [os.path.dirname(value.strip()) for key, _, value in lines if key.strip() == "home" and value.strip()]
    return [os.path.join(p, f) for p in dict.fromkeys(map(os.path.realpath, prefixes)) for f in INTERPRETER_FOLDERS]


def landlock_abi(libc: ctypes.CDLL) -> int:
    """The kernel's Landlock version, 0 when it has none or a container's filter hides it."""
    return max(0, int(libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def _restrict_files(libc: ctypes.CDLL, abi: int, folders: list[str], temporary: str) -> None:
    handled = ABI_1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if abi >= since:
            handled |= right
    scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if abi >= 6 else 0
    # struct landlock_ruleset_attr grew from one member to two (ABI 4, networks) to three (ABI 6, scopes)
    attributes = struct.pack("=QQQ", handled, 0, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if ruleset < 0:
        raise _refused(libc, "landlock_create_ruleset")
    everything_but_devices_and_programs = handled & ~(MAKE_CHAR | MAKE_BLOCK | EXECUTE | IOCTL_DEV)
    for path in (*SYSTEM_FOLDERS, *SYSTEM_FILES, *DEVICES_READ, *folders):
        _allow(libc, ruleset, path, READ & handled)
    for path in DEVICES_WRITTEN:
        _allow(libc, ruleset, path, (READ_FILE | WRITE_FILE | TRUNCATE) & handled)
    _allow(libc, ruleset, temporary, everything_but_devices_and_programs)
    if libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)) < 0:
        raise _refused(libc, "landlock_restrict_self")
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # this system has no such folder, or not one that this user can reach: nothing to allow
    try:
        if not os.path.isdir(path):
            rights &= FILE_RIGHTS
        rule = struct.pack("=Qi", rights, fd)
        if libc.syscall(LANDLOCK_ADD_RULE, ruleset, ctypes.c_int(RULE_PATH_BENEATH), rule, ctypes.c_uint32(0)) < 0:
            raise _refused(libc, "landlock_add_rule for %s" % path)
    finally:
        os.close(fd)


# --- user and capabilities ------------------------------------------------------------------------------------------


def worker_uid(environment: str) -> int:
    """The user of an environment's workers, the same at every start. Never the server's: that is root here."""
    return FIRST_UID + zlib.crc32(os.fsencode(os.path.realpath(environment))) % UIDS


def _become_another_user(libc: ctypes.CDLL, plan: dict[str, Any], folders: list[str], *, confined: bool) -> str:
    """Change from root to the environment's own user, without capabilities; what came of it, in words.

    Under Landlock the worker keeps CAP_DAC_READ_SEARCH: the platform's folders, and often the interpreter's, lie below
    a folder that only root can enter, and what may be read is Landlock's to say. Without Landlock it keeps nothing,
    and stays root's (also without any other capability) where another user could not reach the folders.
    """
    uid = worker_uid(plan["environment"])
    may_read_all = bool(_permitted_capabilities(libc) & 1 << CAP_DAC_READ_SEARCH)  # many containers take it away
    change = (confined and may_read_all) or all(_reachable(path) for path in [*folders, plan["temporary"]])
    keep = may_read_all and (confined or not change)
    for capability in range(64):
        if capability == CAP_DAC_READ_SEARCH and keep:
            continue
        if libc.prctl(PR_CAPBSET_READ, ctypes.c_ulong(capability), 0, 0, 0) == 1:
            _prctl(libc, PR_CAPBSET_DROP, capability)
    _prctl(libc, PR_SET_KEEPCAPS, 1)
    said = "uid %d" % uid
    if change:
        try:
            os.chown(plan["temporary"], uid, uid)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        except OSError as refused:  # a user namespace that does not map this uid
            if os.getuid() != 0:
                raise
            os.chown(plan["temporary"], os.getuid(), os.getgid())
            said = "same user as the server (another uid was refused: %s)" % refused.strerror
    else:
        said = "same user as the server (its folders cannot be reached by another uid)"
    _set_capabilities(libc, 1 << CAP_DAC_READ_SEARCH if keep else 0)
    if keep:
        _prctl(libc, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH)
    return said


def _reachable(path: str) -> bool:
    """Whether a user with no rights of its own may enter `path` and everything above it."""
    path = os.path.realpath(path)
    if not os.path.exists(path):
        return True
    while True:
        if not os.stat(path).st_mode & 0o001:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _permitted_capabilities(libc: ctypes.CDLL) -> int:
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data) != 0:
        raise _refused(libc, "capget")
    return int(struct.unpack("=6I", data.raw)[1])  # the lower half holds every capability that matters here


def _set_capabilities(libc: ctypes.CDLL, kept: int) -> None:
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    data = struct.pack("=6I", kept, kept, kept, 0, 0, 0)  # effective, permitted, inheritable; then the upper halves
    if libc.capset(header, data) != 0:
        raise _refused(libc, "capset")


# --- system calls ---------------------------------------------------------------------------------------------------

_MACHINES = {  # audit architecture; socket; open_by_handle_at, io_uring_setup; chmod, fchmod, fchmodat, fchmodat2
    "x86_64": (0xC000003E, 41, (304, 425), (90, 91, 268, 452)),
    "aarch64": (0xC00000B7, 198, (265, 425), (52, 53, 452)),
}


def _filter_calls(libc: ctypes.CDLL, *, own_user: bool) -> bool:
    """Take away what Landlock does not govern. False where this machine's call numbers are not known.

    Refused are new AF_UNIX sockets (pairs stay: they are connected from birth), and the two calls that would go around
    this or around Landlock: io_uring and opening by file handle. A worker that is the server's own user could also
    open the platform's folders to everybody by changing their modes; there, changing modes has no effect. It is not
    refused, because copying a file to the temporary folder ends with it.
    """
    if platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return False
    architecture, call_socket, refused, modes = _MACHINES[platform.machine()]
    program = _filter_program(architecture, call_socket, refused, () if own_user else modes)
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), header, 0, 0) == 0:
        return True
    if ctypes.get_errno() == 22:  # EINVAL: a kernel without filters
        return False
    raise _refused(libc, "seccomp")


def _filter_program(architecture: int, call_socket: int, refused: tuple[int, ...], ignored: tuple[int, ...]) -> bytes:
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06  # BPF: LD W ABS, JMP JEQ K, JMP JGE K, RET K
    allow, refuse, ignore = 0x7FFF0000, 0x00050000 | 13, 0x00050000  # allow; fail with EACCES; do nothing, return 0
    allowed = 4 + len(refused) + len(ignored) + 3  # the index of the first of the three answers at the end
    to_refuse, to_ignore = allowed + 1, allowed + 2
    lines = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, to_refuse - 2, architecture),  # another architecture's calls (32 bit) have other numbers
        (load, 0, 0, 0),  # seccomp_data.nr
        (at_least, to_refuse - 4, 0, 0x40000000),  # x32 calls, likewise
    ]
    for call in refused:
        lines.append((equal, to_refuse - len(lines) - 1, 0, call))
    for call in ignored:
        lines.append((equal, to_ignore - len(lines) - 1, 0, call))
    lines += [
        (equal, 0, 2, call_socket),
        (load, 0, 0, 16),  # seccomp_data.args[0], lower half
        (equal, 1, 0, int(socket.AF_UNIX)),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
        (give, 0, 0, ignore),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


# --- plumbing -------------------------------------------------------------------------------------------------------


def _prctl(libc: ctypes.CDLL, option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    if libc.prctl(ctypes.c_int(option), *padded) != 0:
        raise _refused(libc, "prctl %d" % option)


def _refused(libc: ctypes.CDLL, what: str) -> LaunchError:
    number = ctypes.get_errno()
    return LaunchError("The sandbox could not be set up: %s: %s." % (what, os.strerror(number)))


def _close_others(fd: int) -> None:
    top = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20)
    os.closerange(3, fd)
    os.closerange(fd + 1, max(top, fd + 1))


def _receive(channel: socket.socket) -> dict[str, Any]:
    header_bytes, body_bytes = struct.unpack("<II", _exactly(channel, 8))
    plan: dict[str, Any] = json.loads(_exactly(channel, header_bytes))
    _exactly(channel, body_bytes)
    return plan


def _exactly(channel: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = channel.recv(size)
        if not part:
            sys.exit(0)  # the parent is gone
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    header = json.dumps(message).encode()
    channel.sendall(struct.pack("<II", len(header), 0) + header)


if __name__ == "__main__":
    main()
