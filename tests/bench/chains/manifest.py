"""Manifests of the clusters without Kubernetes."""

from network import MESHED, PLAIN, PORT

MANY = "many"


def namespace(name, account):
    return f"""---
apiVersion: v1
kind: Namespace
metadata: {{name: {name}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {account}, namespace: {name}}}
"""


def service(namespace_name, name, address):
    return f"""---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace_name}
  annotations: {{tombolo.io/service-account: server, tombolo.io/health-check: none}}
spec:
  ports: [{{name: http, port: {PORT}, targetPort: {PORT}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {namespace_name}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{{name: http, port: {PORT}, protocol: TCP}}]
endpoints:
  - addresses: ["{address}"]
    conditions: {{ready: true}}
"""


def calling():
    """What the cluster that calls has."""
    return namespace("default", "caller")


def serving():
    """What the cluster that serves has: the same server once with a sidecar before it, once without."""
    return namespace("default", "server") + service("default", "meshed", MESHED) + service("default", "plain", PLAIN)


def many(numbers):
    """Services of the namespace of many names; the namespace itself with the first."""
    head = namespace(MANY, "server") if 0 in numbers else ""
    return head + "".join(service(MANY, many_name(number), PLAIN) for number in numbers)


def many_name(number):
    return f"service-{number}"
