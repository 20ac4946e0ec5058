//! `tombolo explain`

use clap::Args;
use tombolo_model::{AccountName, ClusterName, GlobalName, NamespaceName};

/// `tombolo explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who calls: cluster/namespace/account.
    #[arg(long, value_parser = caller)]
    pub from: Caller,
    /// What is called: name:port.
    #[arg(value_parser = destination)]
    pub to: Destination,
}

/// A calling workload.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its service account.
    pub account: AccountName,
}

/// A name and a port.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The global name.
    pub name: GlobalName,
    /// The port.
    pub port: u16,
}

fn caller(text: &str) -> Result<Caller, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let [cluster, namespace, account] = parts.as_slice() else {
        return Err("give cluster/namespace/account, as cluster-1/default/shopping".into());
    };
    Ok(Caller {
        cluster: ClusterName::parse(cluster).map_err(|e| format!("the cluster {e}"))?,
        namespace: NamespaceName::parse(namespace).map_err(|e| format!("the namespace {e}"))?,
        account: AccountName::parse(account).map_err(|e| format!("the account {e}"))?,
    })
}

fn destination(text: &str) -> Result<Destination, String> {
    let (name, port) = text.rsplit_once(':').ok_or("give name:port, as catalog.acme.example.com:8082")?;
    let port = port.parse().ok().filter(|p| *p > 0).ok_or("the port is a number from 1 to 65535")?;
    Ok(Destination { name: GlobalName::parse(name).map_err(|e| format!("the name {e}"))?, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_and_destinations() {
        assert!(caller("c/ns/sa").is_ok());
        assert!(caller("c/ns").is_err());
        assert!(destination("a.b:80").is_ok());
        for bad in ["a.b", "a.b:0", "a.b:70000", "a:80", ":80"] {
            assert!(destination(bad).is_err(), "{bad}");
        }
    }
}
