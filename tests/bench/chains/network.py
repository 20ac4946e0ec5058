"""Where everything runs: two machines with a cable between them, as namespaces, and a third one with a pod's firewall, for a sidecar's rules cost every packet of a
namespace, and are not to cost those who do without."""

import atexit
import os
import subprocess

CALLERS = "10.88.0.1"  # the machine of those who call
MESHED = "10.88.0.2"  # the machine of the server, where a sidecar stands before it
PLAIN = "10.88.0.3"  # the same machine, where none does
POD = "10.89.0.1"  # the machine of those who call through a sidecar
PORT = 8080  # the server's
SERVER = (PLAIN, PORT)

_SETTINGS = {  # ports enough for a connection per request, above those that somebody listens on
    "net.ipv4.ip_local_port_range": "20000 65000", "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.tcp_max_syn_backlog": "8192", "net.core.somaxconn": "8192"}


def ip(*args):
    done = subprocess.run(["ip", *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr}")


def inside(namespace, *command):
    return ["ip", "netns", "exec", namespace, *map(str, command)]


def sysctl(namespace, key, value):
    subprocess.run(inside(namespace, "sysctl", "-qw", f"{key}={value}"), check=True, capture_output=True)


class Network:
    def __init__(self):
        self._remove_left()
        self.callers, self.servers, self.pod = names = [f"tmbb-{os.getpid()}-{at}" for at in range(3)]
        atexit.register(self.remove)
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        self._cable((self.callers, "eth0", CALLERS), (self.servers, "eth0", MESHED))
        ip("-n", self.servers, "address", "add", f"{PLAIN}/24", "dev", "eth0")
        self._cable((self.pod, "eth0", POD), (self.servers, "eth1", "10.89.0.2"))
        # A pod has a default route; virtual addresses need one to be redirected.
        ip("-n", self.pod, "route", "add", "default", "via", "10.89.0.2")
        for name in names:
            for key, value in _SETTINGS.items():
                sysctl(name, key, value)

    @staticmethod
    def _cable(one, other):
        ip("link", "add", one[1], "netns", one[0], "type", "veth", "peer", "name", other[1], "netns", other[0])
        for name, device, address in (one, other):
            ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")

    def remove(self):
        for name in (self.callers, self.servers, self.pod):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    @staticmethod
    def _remove_left():
        """Those of a run that was killed."""
        for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
            parts = name.split("-")
            if parts[0] == "tmbb" and len(parts) == 3 and not os.path.exists(f"/proc/{parts[1]}"):
                subprocess.run(["ip", "netns", "delete", name], capture_output=True)
