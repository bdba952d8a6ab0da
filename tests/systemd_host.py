"""A host of a gateway for one test: Debian's systemd and sshd, in namespaces of their own.

It has the files of this machine, and folders of its own where a host is written to. Units of this
machine are not there, so nothing of it is started a second time; systemd runs what the test starts.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

import tandem
from own_network import own_network

ACCOUNT = "daemon"
PROGRAM = "/opt/tandem/bin/tandem"
_UNITS = (
    "sysinit.target basic.target multi-user.target shutdown.target umount.target slices.target"
    " sockets.target paths.target timers.target network-online.target systemd-journald.service"
    " systemd-journald.socket"
)
_BOOT = """
set -e
mount --make-rprivate /
for here in /run /var /opt /etc/systemd /usr/lib/systemd/system-generators; do
    mount -t tmpfs -o mode=755 tmpfs $here
done
mkdir -p /run/sshd /run/units /var/log /var/lib /var/tmp /etc/systemd/system
for unit in {units}; do cp /usr/lib/systemd/system/$unit /run/units/; done
mount --bind /run/units /usr/lib/systemd/system
cat > /etc/systemd/journald.conf <<'END'
[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
END
cat > /etc/systemd/system/ssh.service <<'END'
[Service]
Type=notify
ExecStart=/usr/sbin/sshd -D -f {folder}/sshd_config
END
cat > /etc/systemd/system/host.target <<'END'
[Unit]
Requires=basic.target
Wants=systemd-journald.socket ssh.service
END
mkdir -p /opt/python /opt/packages /opt/source /opt/tandem/bin
mount --bind {python} /opt/python
mount --bind {packages} /opt/packages
mount --bind {source} /opt/source
cat > {program} <<'END'
#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/source:/opt/packages LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/{executable} -m tandem.cli "$@"
END
chmod 755 {program}
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export container=test
exec /lib/systemd/systemd --system --unit=host.target --log-target=journal --show-status=0
"""
_SSHD = """
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
# The test's folder lies in one that others write to as well.
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""


@dataclass
class Host:
    address: str
    port: int
    folder: Path
    host_key: str
    key: Path
    process: "subprocess.Popen[bytes]"

    def run(self, *command: str, check: bool = True) -> str:
        """In the host, without SSH."""
        (child,) = _children(self.process.pid)
        done = subprocess.run(
            ["nsenter", "-t", child, "-a", *command], capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@contextmanager
def systemd_host(folder: Path, address: str = "127.0.0.21", port: int = 2222) -> Iterator[Host]:
    """The calling thread is in a network of its own meanwhile, and the host is in it."""
    missing = [
        package
        for package, file in (
            ("openssh-server", "/usr/sbin/sshd"),
            ("systemd", "/lib/systemd/systemd"),
        )
        if not os.path.exists(file)
    ]
    if missing:
        why = f"{', '.join(missing)} is not installed: tools/packages.sh {' '.join(missing)}."
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with own_network():
        yield from _host(folder, address, port)


def _host(folder: Path, address: str, port: int) -> Iterator[Host]:
    folder.mkdir(mode=0o700)
    host_key, key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    for name, made in (("host_key", host_key), ("site_key", key)):
        made.write_private_key(folder / name)
        (folder / name).chmod(0o600)
    key.write_public_key(folder / "authorized_keys")
    (folder / "sshd_config").write_text(_SSHD.format(address=address, port=port, folder=folder))
    python = Path(sys.base_prefix).resolve()
    boot = _BOOT.format(
        units=_UNITS,
        folder=folder,
        python=python,
        executable=Path(sys.executable).resolve().relative_to(python),
        packages=Path(asyncssh.__file__).parents[1],
        source=Path(tandem.__file__).parents[1],
        program=PROGRAM,
    )
    words = ["--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--cgroup"]
    with (folder / "boot.out").open("wb") as output:
        process = subprocess.Popen(
            [shutil.which("unshare") or "unshare", *words, "--mount-proc", "bash", "-c", boot],
            stdout=output,
            stderr=output,
        )
    public = host_key.export_public_key().decode().strip()
    made = Host(address, port, folder, public, folder / "site_key", process)
    try:
        _wait(made)
        yield made
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _wait(host: Host) -> None:
    deadline = time.monotonic() + 30
    while True:
        said = (host.folder / "boot.out").read_text()
        assert host.process.poll() is None, said
        if _children(host.process.pid):
            state = host.run("systemctl", "is-active", "ssh.service", check=False).strip()
            if state == "active":
                return
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
