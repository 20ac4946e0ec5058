//! The shop as ordinary Kubernetes manifests: what each cluster's agent reads.

use super::layout::{Layout, services};
use std::fmt::Write as _;

/// The manifests of one cluster.
pub(crate) fn cluster(layout: &Layout, cluster: u8) -> String {
    let mut text = String::from("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n");
    for (name, _) in services().filter(|(_, c)| *c == cluster) {
        let (executable, address, port) =
            (layout.executable(name), layout.machine(cluster), name.usual_port());
        account(&mut text, name.as_str(), &executable.display().to_string());
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: default
  annotations:
    tombolo.io/service-account: {name}
    tombolo.io/health-check: http:/healthz
spec:
  ports:
    - name: http
      port: {port}
      targetPort: {port}
      appProtocol: http
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
  - name: http
    port: {port}
    protocol: TCP
endpoints:
  - addresses: [\"{address}\"]
    conditions:
      ready: true
"
        );
    }
    // Whoever follows the closing table with curl is a workload too: the proxies answer no strangers.
    if cluster == 1
        && let Some(curl) = curl()
    {
        account(&mut text, "visitor", &curl);
    }
    text
}

fn account(text: &mut String, name: &str, executable: &str) {
    // Everything here runs as whoever started the demo.
    let user = nix::unistd::getuid();
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {name}
  namespace: default
  annotations:
    tombolo.io/selector: \"path={executable},uid={user}\"
"
    );
}

/// The path of this machine's curl, without links.
pub(crate) fn curl() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join("curl")).find(|file| file.is_file())?;
    Some(found.canonicalize().ok()?.display().to_string())
}
