"""The cluster whose pods call without a proxy: a true API server with its etcd (tests/kubernetes/binaries builds them). There are no nodes, so callers go to where a node's
proxying would send them: the port of the egress gateway that the name's Service leads to."""

import json
import os
import socket
import ssl
import urllib.request

import keys
from process import Program, until

BINARIES = ".run/kubernetes/bin"
OWN = "tombolo-system"
ADMIN = "admin"
AGENT = "agent"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Kubernetes:
    def __init__(self, home):
        os.makedirs(home)
        file = lambda name: os.path.join(home, name)
        client, peer, self.port = free_port(), free_port(), free_port()
        urls = [f"http://127.0.0.1:{port}" for port in (client, peer)]
        Program("etcd", [
            f"{BINARIES}/etcd", "--data-dir", file("etcd"), "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
            "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}",
            "--unsafe-no-fsync"], file("etcd.log"))
        authority = keys.Keys(file("keys"))
        certificate, key = authority.leaf("server", "IP:127.0.0.1")
        _, accounts = authority.leaf("accounts", "DNS:accounts")
        with open(file("tokens.csv"), "w") as tokens:
            tokens.write(f'{ADMIN}-token,{ADMIN},{ADMIN},"system:masters"\n{AGENT}-token,{AGENT},{AGENT},"tombolo"\n')
        self.context = ssl.create_default_context(cafile=authority.authority)
        Program("kube-apiserver", [
            f"{BINARIES}/kube-apiserver", f"--etcd-servers={urls[0]}", f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",  # nobody here makes the accounts of namespaces
            f"--token-auth-file={file('tokens.csv')}", f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}"], file("apiserver.log"))
        until("the API server is ready", lambda: self._call("/readyz"), 120)
        group = "rbac.authorization.k8s.io"
        # The agent may everything: its rights are another test's.
        self._call(f"/apis/{group}/v1/clusterrolebindings", {
            "apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "tombolo"},
            "subjects": [{"apiGroup": group, "kind": "Group", "name": "tombolo"}],
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"}})
        self._call("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OWN}})
        self.kubeconfig = file("agent.kubeconfig")
        with open(self.kubeconfig, "w") as config:
            json.dump({
                "apiVersion": "v1", "kind": "Config", "current-context": "here",
                "clusters": [{"name": "c", "cluster": {"server": self._url(""), "certificate-authority": authority.authority}}],
                "users": [{"name": "u", "user": {"token": f"{AGENT}-token"}}],
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}]}, config)

    def captured_at(self, name):
        """Where the egress gateway takes connections to a name; none where there is no Service of it yet."""
        for service in json.loads(self._call(f"/api/v1/namespaces/{OWN}/services"))["items"]:
            if service["metadata"].get("annotations", {}).get("tombolo.io/name") == name:
                return service["spec"]["ports"][0]["targetPort"]
        return None

    def _url(self, path):
        return f"https://127.0.0.1:{self.port}{path}"

    def _call(self, path, body=None):
        headers = {"Authorization": f"Bearer {ADMIN}-token", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self._url(path), data, headers)
        with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
            return answer.read()
