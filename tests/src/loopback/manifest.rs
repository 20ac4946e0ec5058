//! Manifests, as people write them.

use std::{fmt::Write as _, net::SocketAddrV4, path::Path};

/// The account of a program.
pub(super) fn account(name: &str, path: &Path) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {name}
  namespace: default
  annotations:
    tombolo.io/selector: \"path={},uid={}\"
",
        path.display(),
        nix::unistd::geteuid()
    );
    text
}

/// A service with one endpoint.
pub(super) fn service(name: &str, port: u16, at: SocketAddrV4) -> String {
    let (ip, target) = (at.ip(), at.port());
    format!(
        "---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: default
  annotations:
    tombolo.io/service-account: server
    tombolo.io/health-check: none
spec:
  ports:
    - name: main
      port: {port}
      targetPort: {target}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: default
  labels:
    kubernetes.io/service-name: {name}
addressType: IPv4
ports:
  - name: main
    port: {target}
    protocol: TCP
endpoints:
  - addresses: [\"{ip}\"]
    conditions:
      ready: true
"
    )
}
