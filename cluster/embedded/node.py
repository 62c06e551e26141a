"""Runs inside a node's new namespaces: makes the machine's file system its own, then becomes its sshd.

Started as a file with nothing but the standard library, for the folder it lies in is soon out of sight.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OWN_FOLDERS = ("/tmp", "/var/tmp", "/run", "/srv")
CLEARED_AT_START = ("/tmp", "/run")
HOST_KEY = "/etc/ssh/treespec_host_key"
SSHD_CONFIG = "/etc/ssh/treespec_sshd_config"
SSHD_SETTINGS = f"""\
HostKey {HOST_KEY}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
PidFile none
MaxStartups 100
Subsystem sftp internal-sftp
"""


def main() -> None:
    """Never returns: the process becomes sshd, the node's first process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--disk", type=Path, required=True, help="where this node's own tmpfs is mounted")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--login", required=True)
    parser.add_argument("--hide", type=Path, action="append", default=[], help="an empty folder of its own here")
    parser.add_argument("--show", type=Path, action="append", default=[], help="this machine's folder, read only")
    parser.add_argument("--sshd", required=True)
    args = parser.parse_args()
    os.umask(0o022)
    socket.sethostname(args.name)
    root = _overlay(args.disk)
    _furnish(root, args.disk, hidden=[*map(Path, OWN_FOLDERS), args.home, *args.hide], shown=args.show)
    _settle(root, args.disk.parent, args.name, args.login, args.home)
    _move_into(root)
    os.execv(args.sshd, [args.sshd, "-D", "-e", "-f", SSHD_CONFIG])


def _overlay(disk: Path) -> Path:
    """This machine's root as it is, with every change going to the node's disk."""
    for name in ("upper", "work", "root", "own"):
        (disk / name).mkdir(exist_ok=True)
    layers = f"lowerdir=/,upperdir={disk}/upper,workdir={disk}/work"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, f"{disk}/root")
    return disk / "root"


def _furnish(root: Path, disk: Path, *, hidden: list[Path], shown: list[Path]) -> None:
    """Folders of the node's own over those it must not see, and what is another file system in a real one."""
    apart = [path for path in (Path("/usr"), *shown) if path.stat().st_dev != os.stat("/").st_dev]
    for path in apart:
        _lend(path, root)
    covers = _outermost(hidden)
    for path in covers:
        own = disk / "own" / str(path).strip("/").replace("/", ":")
        if str(path) in CLEARED_AT_START:
            shutil.rmtree(own, ignore_errors=True)
        own.mkdir(exist_ok=True)
        own.chmod(0o1777 if path.name == "tmp" else 0o755)
        _mount(root, path, "--bind", str(own))
    for path in shown:
        if any(path.is_relative_to(cover) for cover in covers):
            _lend(path, root)
    _mount(root, Path("/proc"), "-t", "proc", "proc")
    _mount(root, Path("/sys"), "-t", "sysfs", "-o", "ro", "sysfs")
    _mount(root, Path("/dev"), "--rbind", "/dev")
    _mount(root, Path("/dev/shm"), "-t", "tmpfs", "tmpfs")
    _mount(root, Path("/dev/pts"), "-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts")


def _outermost(paths: list[Path]) -> list[Path]:
    """Without what lies in another one of them, and without links to elsewhere."""
    real = {path.resolve() for path in paths} - {Path("/")}
    return sorted(path for path in real if not any(parent in real for parent in path.parents))


def _lend(path: Path, root: Path) -> None:
    _mount(root, path, "--bind", str(path))
    _run("mount", "-o", "remount,bind,ro", f"{root}{path}")


def _mount(root: Path, path: Path, *words: str) -> None:
    target = Path(f"{root}{path}")
    target.mkdir(parents=True, exist_ok=True)
    _run("mount", *words, str(target))


def _settle(root: Path, folder: Path, name: str, login: str, home: Path) -> None:
    """Name, neighbours, host key and login of this node; what the login's home already holds stays."""
    shutil.copyfile(folder.parent / "hosts", root / "etc/hosts")
    (root / "etc/hostname").write_text(f"{name}\n")
    (root / "run/sshd").mkdir(mode=0o755)
    (root / SSHD_CONFIG.lstrip("/")).write_text(SSHD_SETTINGS)
    key = root / HOST_KEY.lstrip("/")
    shutil.copyfile(folder / "host_key", key)
    key.chmod(0o600)
    shadow = root / "etc/shadow"  # sshd refuses a locked login, key or not
    shadow.write_text(re.sub(rf"^{re.escape(login)}:!", f"{login}:*", shadow.read_text(), flags=re.MULTILINE))
    own_home = Path(f"{root}{home.resolve()}")
    own_home.mkdir(parents=True, exist_ok=True)
    own_home.chmod(0o700)
    authorized = own_home / ".ssh/authorized_keys"
    if not authorized.exists():
        authorized.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(folder.parent / "id.pub", authorized)
        authorized.chmod(0o600)


def _move_into(root: Path) -> None:
    """Make it the root of this namespace; this machine's own file systems are out of reach afterwards."""
    former = root / "run/former"
    former.mkdir()
    _run("pivot_root", str(root), str(former))
    os.chdir("/")
    _run("umount", "--lazy", "/run/former")
    Path("/run/former").rmdir()


def _run(*words: str) -> None:
    done = subprocess.run(words, env={"PATH": PATH}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {' '.join(done.stderr.split())}")


if __name__ == "__main__":
    main()
