"""The programs that are not ours: the server, and the chains beside ours."""

import json
import os

from chain import Chain
from envoy import CARRY, CLEAR, H2, HTTP, PASS, TLS, UNWRAP, WRAP, bootstrap
from keys import Keys
from network import CALLERS, MESHED, PORT, SERVER, inside
from process import Program

ENVOY = ".run/bench/envoy"
BULK_BYTES = 256 << 20
FIRST_PORT = 18000  # below those of callers

# By chain: each Envoy's name, address, and what it does.
ENVOYS = {
    "envoy-tcp": [("proxy", CALLERS, CLEAR, CARRY, CLEAR)],
    "envoy2-tls": [("egress", CALLERS, CLEAR, CARRY, TLS), ("ingress", MESHED, TLS, CARRY, CLEAR)],
    "envoy2-connect": [("egress", CALLERS, CLEAR, WRAP, H2), ("ingress", MESHED, H2, UNWRAP, CLEAR)],
    "envoy3-connect": [("sidecar", CALLERS, CLEAR, WRAP, H2), ("egress", CALLERS, H2, PASS, H2),
                       ("ingress", MESHED, H2, UNWRAP, CLEAR)],
    "envoy4-http": [("sidecar", CALLERS, CLEAR, HTTP, H2), ("egress", CALLERS, H2, HTTP, H2),
                    ("ingress", MESHED, H2, HTTP, H2), ("server-sidecar", MESHED, H2, HTTP, CLEAR)],
}


def nginx(network, home):
    """1 KiB from memory, and a file."""
    folder = os.path.join(home, "nginx")
    os.makedirs(folder)
    with open(os.path.join(folder, "bulk"), "wb") as bulk:
        bulk.truncate(BULK_BYTES)
    temporary = "".join(f"{what}_temp_path {folder}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = os.path.join(folder, "nginx.conf")
    with open(config, "w") as file:
        file.write(f"""daemon off; user root; worker_processes 2; worker_rlimit_nofile 65536; pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
  access_log off; default_type application/octet-stream;
  sendfile on; tcp_nodelay on; keepalive_timeout 1h; keepalive_requests 1000000000;
  {temporary}
  server {{
    listen {PORT} backlog=8192;
    location = / {{ return 200 "{'x' * 1024}"; }}
    location = /bulk {{ root {folder}; }}
  }}
}}
""")
    Program("nginx", inside(network.servers, "nginx", "-e", "stderr", "-c", config), os.path.join(folder, "log"))


class Peers:
    def __init__(self, network, home):
        self.network, self.home, self.port = network, home, FIRST_PORT
        self.keys = Keys(os.path.join(home, "keys"))

    def start(self, name):
        """The chain of this name, its programs started."""
        if name == "direct":
            return Chain(name, self.network.callers, SERVER, [])
        if name == "haproxy-tcp":
            at = self._place(CALLERS)
            return Chain(name, self.network.callers, at, [("proxy", self._haproxy(at))])
        places = ENVOYS[name]
        listens = [self._place(address) for _, address, *_ in places] + [SERVER]
        proxies = []
        for at, (role, address, source, does, to) in enumerate(places):
            full = f"{name}-{role}"
            config = self._file(f"{full}.json")
            with open(config, "w") as file:
                json.dump(bootstrap(full, listens[at], source, does, to, listens[at + 1], self.keys, self.home), file)
            namespace = self.network.callers if address == CALLERS else self.network.servers
            command = inside(namespace, os.path.abspath(ENVOY), "--concurrency", "2", "--log-level", "warn", "--disable-hot-restart", "-c", config)
            proxies.append((role, Program(full, command, self._file(f"{full}.log")).pid))
        return Chain(name, self.network.callers, listens[0], proxies)

    def _place(self, address):
        self.port += 1
        return address, self.port

    def _file(self, name):
        return os.path.join(self.home, name)

    def _haproxy(self, at):
        config = self._file("haproxy.cfg")
        with open(config, "w") as file:
            file.write(f"""global
  nbthread 2
  maxconn 4000
  log stdout format raw local0
defaults
  mode tcp
  log global
  option tcplog
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend in
  bind {at[0]}:{at[1]}
  default_backend out
backend out
  server server {SERVER[0]}:{SERVER[1]}
frontend metrics
  mode http
  option httplog
  bind 127.0.0.1:{self._place(CALLERS)[1]}
  http-request use-service prometheus-exporter if {{ path /metrics }}
""")
        command = inside(self.network.callers, "haproxy", "-db", "-f", config)
        return Program("haproxy", command, self._file("haproxy-access.log")).pid
