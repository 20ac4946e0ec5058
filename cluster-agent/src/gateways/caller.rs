//! Who asks, as the API server knows it by the token of their pod. Pure.

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use std::collections::BTreeMap;
use thiserror::Error;
use tombolo_model::{AccountName, NamespaceName};

/// For whom the tokens of gateways must be: one that is for another, or for the API server itself, is none of ours.
pub(crate) const AUDIENCE: &str = "tombolo-agent";
/// Service accounts, as the API server names them: with `NAMESPACE:NAME` behind.
const ACCOUNT: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// A pod that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Its namespace.
    pub(crate) namespace: NamespaceName,
    /// Its service account.
    pub(crate) account: AccountName,
    /// Its name.
    pub(crate) pod: AccountName,
    /// Which pod of that name.
    pub(crate) uid: String,
    /// Its node; older API servers don't say.
    pub(crate) node: Option<AccountName>,
}

impl Caller {
    /// What the gateway in this pod is called.
    pub(crate) fn instance(&self) -> String {
        format!("{}.{}", self.namespace, self.pod)
    }
}

/// Why a token names nobody.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// Another API server's, expired, of a pod that is gone, or made up.
    #[error("the API server does not take the token{}", because(.0))]
    Refused(String),
    /// For somebody else.
    #[error(
        "the token is not for this agent; project one with the audience {AUDIENCE} (serviceAccountToken.audience)"
    )]
    Audience,
    /// Not a service account's.
    #[error("the token is that of {0}, who is no service account")]
    NoAccount(String),
    /// Made by hand, or an old one.
    #[error(
        "the token is bound to no pod; let the pod have it projected (volumes.projected.serviceAccountToken)"
    )]
    NoPod,
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

/// Reads the API server's answer about a token, which it was asked about for [`AUDIENCE`].
pub(crate) fn read(status: &TokenReviewStatus) -> Result<Caller, Nobody> {
    if status.authenticated != Some(true) {
        return Err(Nobody::Refused(status.error.clone().unwrap_or_default()));
    }
    // An authenticator that knows nothing of audiences answers with none.
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(Nobody::Audience);
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix(ACCOUNT).and_then(|rest| {
        let (namespace, account) = rest.split_once(':')?;
        Some((NamespaceName::parse(namespace).ok()?, AccountName::parse(account).ok()?))
    });
    let Some((namespace, account)) = account else { return Err(Nobody::NoAccount(name)) };
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| only(&extra, key);
    let pod = one(POD_NAME).and_then(|name| AccountName::parse(name).ok());
    let (Some(pod), Some(uid)) = (pod, one(POD_UID)) else { return Err(Nobody::NoPod) };
    let node = one(NODE_NAME).and_then(|name| AccountName::parse(name).ok());
    Ok(Caller { namespace, account, pod, uid: uid.to_owned(), node })
}

fn only<'a>(extra: &'a BTreeMap<String, Vec<String>>, key: &str) -> Option<&'a str> {
    match extra.get(key)?.as_slice() {
        [one] if !one.is_empty() => Some(one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(change: impl Fn(&mut Value)) -> Result<Caller, Nobody> {
        let mut status = json!({
            "authenticated": true,
            "audiences": ["tombolo-agent"],
            "user": {
                "username": "system:serviceaccount:shop:cart",
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["cart-1"],
                    "authentication.kubernetes.io/pod-uid": ["u-1"],
                    "authentication.kubernetes.io/node-name": ["n1"],
                },
            },
        });
        change(&mut status);
        read(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_pod() {
        let caller = told(|_| {}).unwrap();
        assert_eq!(caller.instance(), "shop.cart-1");
        assert_eq!((caller.account.as_str(), caller.uid.as_str()), ("cart", "u-1"));
        assert_eq!(caller.node.unwrap().as_str(), "n1");
        let older = told(|status| {
            status["user"]["extra"].as_object_mut().unwrap().remove("authentication.kubernetes.io/node-name");
        });
        assert_eq!(older.unwrap().node, None);
    }

    #[test]
    fn nobody() {
        let refused = told(|status| {
            *status = json!({"error": "token has expired"});
        });
        assert_eq!(refused, Err(Nobody::Refused("token has expired".to_owned())));
        assert!(told(|status| status["authenticated"] = json!(false)).is_err());
        for audiences in [json!(null), json!([]), json!(["https://kubernetes.default.svc"])] {
            assert_eq!(told(|status| status["audiences"] = audiences.clone()), Err(Nobody::Audience));
        }
        for name in
            ["admin", "system:node:n1", "system:serviceaccount:shop", "system:serviceaccount:a_b:c", ""]
        {
            let found = told(|status| status["user"]["username"] = json!(name));
            assert_eq!(found, Err(Nobody::NoAccount(name.to_owned())));
        }
        for key in ["authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"] {
            for value in [json!([]), json!([""]), json!(["a", "b"])] {
                assert_eq!(told(|s| s["user"]["extra"][key] = value.clone()), Err(Nobody::NoPod), "{key}");
            }
        }
    }
}
