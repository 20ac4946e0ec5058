"""Servers of DNS: ours with the names of another cluster, others with the same names from a file."""

import os
import socket
import subprocess

import dns
import said
from book import percentile
from client import paced
from kubernetes import BINARIES
from manifest import many_name
from process import Program, resident, until, used
from tombolo import MANY_DOMAIN

SOME = 1000  # names that all have while answers are counted
MANY = 10000  # names that ours has when memory is looked at
PACE = 2000  # questions a second
OURS = "tombolo"


def _full(number):
    return f"{many_name(number)}.{MANY_DOMAIN}"


def _address(number):
    return f"240.1.{number // 256}.{number % 256}"


def _free():
    """A port of loopback that is free for both TCP and UDP."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]
            except OSError:
                continue


class Servers:
    def __init__(self, tombolo, home):
        self.home = os.path.join(home, "names")
        os.makedirs(self.home)
        self.questions = self._write("questions", "".join(f"{_full(number)} A\n" for number in range(SOME)))
        self.all = [("coredns", *self._coredns()), ("unbound", *self._unbound()),
                    (OURS, tombolo.names(), tombolo.pid("cluster-3 agent"))]
        for name, at, _ in self.all:
            until(f"{name} answers", lambda: dns.ask(at, _full(SOME - 1)), 30)

    def measure(self, seconds, book):
        """One round."""
        questions = [dns.question(_full(number)) for number in range(SOME)]
        for name, at, pid in self.all:
            before = used(pid)
            command = ["dnsperf", "-s", at[0], "-p", str(at[1]), "-l", str(seconds), "-c", "4", "-T", "1", "-d", self.questions]
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
            answers, took = said.dnsperf(done.stdout + done.stderr), used(pid) - before
            asker = dns.Asker(at)
            waited = paced(PACE, seconds, lambda turn: asker.ask(questions[turn % SOME]))
            book.note("names", name, {
                "rate": answers["rate"], "cpu_million": took * 1e6 / answers["answered"],
                "p50": percentile(waited, 0.5), "p99": percentile(waited, 0.99),
                "failed": answers["failed"] * 1e6 / answers["answered"], "idle": resident(pid)})

    def _write(self, name, text):
        path = os.path.join(self.home, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def _coredns(self):
        port = _free()
        hosts = self._write("hosts", "".join(f"{_address(number)} {_full(number)}\n" for number in range(SOME)))
        config = self._write("Corefile", f"""{MANY_DOMAIN}:{port} {{
  bind 127.0.0.1
  errors
  prometheus 127.0.0.1:{_free()}
  hosts {hosts}
}}
""")
        command = [f"{BINARIES}/coredns", "-conf", config]
        return ("127.0.0.1", port), Program("coredns", command, os.path.join(self.home, "coredns.log")).pid

    def _unbound(self):
        port = _free()
        data = "".join(f'  local-data: "{_full(number)}. 5 IN A {_address(number)}"\n' for number in range(SOME))
        config = self._write("unbound.conf", f"""server:
  interface: 127.0.0.1
  port: {port}
  num-threads: 2
  do-daemonize: no
  chroot: ""
  username: ""
  pidfile: ""
  directory: "{self.home}"
  use-syslog: no
  access-control: 127.0.0.0/8 allow
  module-config: "iterator"
  extended-statistics: yes
  local-zone: "{MANY_DOMAIN}." static
{data}remote-control:
  control-enable: no
""")
        command = ["unbound", "-d", "-c", config]
        return ("127.0.0.1", port), Program("unbound", command, os.path.join(self.home, "unbound.log")).pid
