"""The true programs, as people run them: a controller with its own PostgreSQL and an agent for each cluster (these on the machine itself; gateways reach theirs by its socket),
gateways in the namespaces. Access logs and metrics on, nothing else said than where they are.

cluster-2 serves. Two others call: cluster-1 is of Kubernetes, in capture mode `gateway`, whose pods' connections come to the egress gateway itself; cluster-3 has a sidecar
and a pod's redirect."""

import json
import os
import subprocess

import dns
import manifest
from chain import Chain
from kubernetes import Kubernetes
from network import CALLERS, MESHED, POD, PORT, inside, sysctl
from process import Program, read, until

DOMAIN = "bench.example.com"
MANY_DOMAIN = "many.example.com"
FOLDER = os.environ.get("TOMBOLO_BIN", "target/release")


def program(name):
    return os.path.join(FOLDER, name)


class Tombolo:
    def __init__(self, network, home, chains):
        self.network, self.home = network, os.path.join(home, "tombolo")
        self.programs, self.commands, self.kubernetes = {}, {}, None
        os.makedirs(self.home)
        os.chmod(home, 0o711)  # PostgreSQL runs as another user and must get through
        os.chmod(self.home, 0o711)
        ready = self._run("controller", [
            program("tombolo-controller"), "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
            "--data", self._path("controller"), "--owner-token-file", self._path("owner-token")])
        self.server = ["--server", f"https://{ready['api']}", "--ca-fingerprint", ready["ca_fingerprint"]]
        self._cli("owner-token", "org", "create", "acme", "--admin-token-file", self._path("token"))
        self._user("gns", "create", "bench", "--domain", DOMAIN, "--namespace", "default")
        # The cluster of Kubernetes has no part in it: what its API server does with as many Services is not what is measured.
        clusters = ["--cluster", "cluster-2", "--cluster", "cluster-3"]
        self._user("gns", "create", "many", "--domain", MANY_DOMAIN, "--namespace", manifest.MANY, *clusters)

        self._standalone("cluster-2", manifest.serving())
        self._gateway(network.servers, "cluster-2", "ingress", (MESHED, 15443), "--advertise", f"{MESHED}:15443")
        if "tombolo4" in chains:
            self._sidecar(network.servers, "cluster-2", MESHED, "server")
        if "tombolo2" in chains:
            self.kubernetes = Kubernetes(os.path.join(home, "kubernetes"))
            self._join("cluster-1")
            self._agent("cluster-1", "--kubernetes", "--capture", "gateway", "--kubeconfig", self.kubernetes.kubeconfig)
            self._gateway(network.callers, "cluster-1", "egress", (CALLERS, 15008))
        self._standalone("cluster-3", manifest.calling())  # its DNS is measured, too
        if "tombolo3" in chains or "tombolo4" in chains:
            self._gateway(network.pod, "cluster-3", "egress", (POD, 15008))
            self._sidecar(network.pod, "cluster-3", POD, "caller")
            redirect = [program("tombolo-gateway"), "redirect", "--vips", "240.0.0.0/4", "--port", "15001"]
            _must(inside(network.pod, *redirect))
            # The redirect tracks connections: those of a connection for each request are to be gone again before the table is full.
            sysctl(network.pod, "net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1")

    def chain(self, name):
        """A chain by its name."""
        sidecar = [("sidecar", "cluster-3 sidecar"), ("egress", "cluster-3 egress"), ("ingress", "cluster-2 ingress")]
        if name == "tombolo2":
            at = until("the Service of the name", lambda: self.kubernetes.captured_at(f"plain.{DOMAIN}"))
            parts = [("egress", "cluster-1 egress"), ("ingress", "cluster-2 ingress")]
            return self._chain(name, self.network.callers, (CALLERS, at), parts)
        if name == "tombolo3":
            return self._chain(name, self.network.pod, self._address("plain"), sidecar)
        parts = [*sidecar, ("server-sidecar", "cluster-2 sidecar")]
        return self._chain(name, self.network.pod, self._address("meshed"), parts)

    def is_end_to_end(self):
        """That the server's sidecar has seen the caller's own certificate: the workloads' TLS session runs inside the tunnels."""
        def look():
            lines = map(json.loads, read(self._path("cluster-2/sidecar-access.log")).splitlines())
            caller = "/cluster/cluster-3/ns/default/sa/caller"
            return any(line.get("source_verified") and (line.get("source") or "").endswith(caller) for line in lines)
        until("the server's sidecar has verified the caller", look)

    def many(self, count):
        """Makes as many names, and waits until the callers' cluster answers the last of them."""
        for at, start in enumerate(range(0, count, 1000)):
            with open(self._path(f"cluster-2/manifests/many-{at}.yaml"), "w") as file:
                file.write(manifest.many(range(start, min(count, start + 1000))))
        last = f"{manifest.many_name(count - 1)}.{MANY_DOMAIN}"
        until("the last name has an address", lambda: dns.ask(self.names(), last), 180)

    def restart(self):
        """The gateways and the agent of the callers' cluster, and the gateways of the servers', anew, on what they left."""
        for name in ("cluster-3 agent", "cluster-2 ingress", "cluster-2 sidecar", "cluster-3 egress", "cluster-3 sidecar"):
            if name in self.programs:
                self.programs[name][0].stop()
                self._run(name, self.commands[name])

    def names(self):
        """Where the callers' cluster answers DNS."""
        host, _, port = self.programs["cluster-3 agent"][1]["dns"].rpartition(":")
        return host, int(port)

    def pid(self, part):
        return self.programs[part][0].pid

    def _chain(self, name, namespace, to, parts):
        return Chain(name, namespace, to, [(role, self.pid(part)) for role, part in parts])

    def _address(self, service):
        return until(f"{service} has an address", lambda: dns.ask(self.names(), f"{service}.{DOMAIN}")), PORT

    def _path(self, name):
        return os.path.join(self.home, name)

    def _cli(self, token, *args):
        _must([program("tombolo"), *self.server, "--token-file", self._path(token), *args], {"HOME": self.home})

    def _user(self, *args):
        self._cli("token", "-O", "acme", *args)

    def _join(self, cluster):
        os.makedirs(self._path(cluster))
        token = self._path(f"{cluster}/join-token")
        self._user("cluster", "create", cluster, "--join-token-file", token)
        where = ["--controller", self.server[1], *self.server[2:]]
        _must([program("tombolo-agent"), "join", *where, "--cluster", cluster, "--token-file", token,
               "--data", self._path(f"{cluster}/agent")])

    def _agent(self, cluster, *options):
        self._run(f"{cluster} agent", [
            program("tombolo-agent"), "run", "--dns", "127.0.0.1:0", "--dns-forward", "refuse", "--admin", "127.0.0.1:0",
            "--data", self._path(f"{cluster}/agent"), "--gateway-socket", self._path(f"{cluster}/gateways.sock"), *options])

    def _standalone(self, cluster, text):
        self._join(cluster)
        folder = self._path(f"{cluster}/manifests")
        os.makedirs(folder)
        with open(os.path.join(folder, "all.yaml"), "w") as file:
            file.write(text)
        self._agent(cluster, "--manifests", folder)

    def _sidecar(self, namespace, cluster, address, account):
        self._gateway(namespace, cluster, "sidecar", (address, 15009), "--capture", "sidecar",
                      "--serve", address, "--workload", f"default/{account}")

    def _gateway(self, namespace, cluster, role, tunnel, *options):
        self._run(f"{cluster} {role}", inside(
            namespace, program("tombolo-gateway"), "run", "--role", role, "--instance", role, "--admin", "127.0.0.1:0",
            "--tunnel", "%s:%d" % tunnel, "--agent-socket", self._path(f"{cluster}/gateways.sock"),
            "--access-log", self._path(f"{cluster}/{role}-access.log"), "--cache", self._path(f"{cluster}/{role}.cache"),
            *options))

    def _run(self, name, command):
        base = self._path(name.replace(" ", "-"))
        if os.path.exists(f"{base}.json"):
            os.remove(f"{base}.json")
        running = Program(name, [*command, "--ready-file", f"{base}.json"], f"{base}.log")
        ready = until(f"{name} is ready", lambda: json.loads(read(f"{base}.json")))
        self.programs[name], self.commands[name] = (running, ready), command
        return ready


def _must(command, env=None):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
