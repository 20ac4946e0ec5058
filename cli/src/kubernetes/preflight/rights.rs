//! What this user may: write all of the manifest, and give the agent what the manifest gives it. Nobody may give what he has not, unless
//! he may `escalate` and `bind`.

use super::{super::NAMESPACE, Asked, Finding, Verdict, finding, refused, some};
use crate::kubernetes::apply::Document;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt};

/// Questions at the same time.
const TOGETHER: usize = 16;

/// Something that somebody may, or may not.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    namespace: Option<String>,
    group: String,
    resource: String,
    name: Option<String>,
    verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

pub(super) async fn look(asked: &Asked<'_>, documents: &[Document]) -> Vec<Finding> {
    match found(asked, documents).await {
        Ok(findings) => findings,
        Err(error) => {
            let said = format!("they can't be asked for: {}", refused(&error));
            vec![finding("permissions", Verdict::Missing, said)]
        }
    }
}

async fn found(asked: &Asked<'_>, documents: &[Document]) -> Result<Vec<Finding>, kube::Error> {
    let missing = missing(asked, written(documents, &["create", "patch"])).await?;
    let mut all = vec![applying(&missing)];
    let may_give = self::missing(asked, giving(documents)).await?;
    let lacks = if may_give.is_empty() { Vec::new() } else { self::missing(asked, given(documents)).await? };
    all.push(escalation(&may_give, &lacks));
    all.push(taking_out(&self::missing(asked, written(documents, &["delete"])).await?));
    Ok(all)
}

/// Those of these that this user has not.
async fn missing(asked: &Asked<'_>, rights: BTreeSet<Right>) -> Result<Vec<Right>, kube::Error> {
    let one = |right: Right| async move {
        let attributes = json!({
            "verb": right.verb, "group": right.group, "resource": right.resource.split('/').next(),
            "subresource": right.resource.split_once('/').map(|(_, sub)| sub),
            "namespace": right.namespace, "name": right.name,
        });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let answer = asked.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await?;
        Ok::<_, kube::Error>((answer["status"]["allowed"] != true).then_some(right))
    };
    let asking = rights.into_iter().map(one);
    let refused: Vec<Option<Right>> = stream::iter(asking).buffered(TOGETHER).try_collect().await?;
    Ok(refused.into_iter().flatten().collect())
}

/// To write the manifest and the token.
fn written(documents: &[Document], verbs: &[&str]) -> BTreeSet<Right> {
    let kinds = documents
        .iter()
        .map(|one| (one.resource.group.clone(), one.resource.plural.clone(), one.namespace.clone()));
    let token = (String::new(), "secrets".to_owned(), Some(NAMESPACE.to_owned()));
    let kinds: BTreeSet<_> = kinds.chain([token]).collect();
    let right = |(group, resource, namespace): &(String, String, Option<String>), verb: &str| Right {
        namespace: namespace.clone(),
        group: group.clone(),
        resource: resource.clone(),
        name: None,
        verb: verb.to_owned(),
    };
    kinds.iter().flat_map(|kind| verbs.iter().map(move |verb| right(kind, verb))).collect()
}

fn is_role(document: &Document) -> bool {
    matches!(document.kind.as_str(), "Role" | "ClusterRole")
}

/// To give rights that one has not.
fn giving(documents: &[Document]) -> BTreeSet<Right> {
    let right = |document: &Document, verb: &str| Right {
        namespace: document.namespace.clone(),
        group: document.resource.group.clone(),
        resource: document.resource.plural.clone(),
        name: Some(document.name.clone()),
        verb: verb.to_owned(),
    };
    let roles = documents.iter().filter(|one| is_role(one));
    roles.flat_map(|role| ["escalate", "bind"].map(|verb| right(role, verb))).collect()
}

/// What the manifest's roles give.
fn given(documents: &[Document]) -> BTreeSet<Right> {
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let all = rule[field].as_array().into_iter().flatten();
        all.filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let mut all = BTreeSet::new();
    for role in documents.iter().filter(|one| is_role(one)) {
        for rule in role.value["rules"].as_array().into_iter().flatten() {
            let names = texts(rule, "resourceNames");
            let names: Vec<Option<String>> =
                if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    for verb in texts(rule, "verbs") {
                        all.extend(names.iter().map(|name| Right {
                            namespace: role.namespace.clone(),
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                            verb: verb.clone(),
                        }));
                    }
                }
            }
        }
    }
    all
}

fn words(rights: &[Right]) -> String {
    some(&rights.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn applying(missing: &[Right]) -> Finding {
    if missing.is_empty() {
        return finding("permissions", Verdict::Good, "all of the manifest may be applied");
    }
    let said = format!(
        "this user may not {}; use one that is bound to the ClusterRole cluster-admin",
        words(missing)
    );
    finding("permissions", Verdict::Missing, said)
}

fn escalation(may_give: &[Right], lacks: &[Right]) -> Finding {
    const WHAT: &str = "agent's rights";
    if may_give.is_empty() {
        return finding(WHAT, Verdict::Good, "this user may give any right");
    }
    if lacks.is_empty() {
        return finding(WHAT, Verdict::Good, "this user has all that the manifest gives the agent");
    }
    let said = format!(
        "this user may not give the agent what he has not himself: {}. Use one that is bound to the ClusterRole cluster-admin, or let this one \
         escalate and bind roles and clusterroles `tombolo-agent`",
        words(lacks)
    );
    finding(WHAT, Verdict::Missing, said)
}

fn taking_out(missing: &[Right]) -> Finding {
    const WHAT: &str = "taking out";
    if missing.is_empty() {
        return finding(WHAT, Verdict::Good, "this user may delete all of it again");
    }
    let said = format!("this user may not {}: `cluster uninstall` will need one who may", words(missing));
    finding(WHAT, Verdict::Less, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::apply::documents;

    const MANIFEST: &str = include_str!("../../../../deploy/kubernetes/agent.yaml");

    #[test]
    fn what_the_manifest_needs_and_gives() {
        let all = documents(MANIFEST).unwrap();
        let words = |rights: BTreeSet<Right>| rights.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let needed = words(written(&all, &["create"]));
        for one in [
            "create namespaces",
            "create clusterroles",
            "create secrets in tombolo-system",
            "create roles in kube-system",
        ] {
            assert!(needed.contains(one), "{one}: {needed:?}");
        }
        let giving = words(giving(&all));
        assert!(giving.contains("escalate clusterroles tombolo-agent"), "{giving:?}");
        assert!(giving.contains("bind roles tombolo-agent in kube-system"), "{giving:?}");
        let given = words(given(&all));
        for one in [
            "list nodes",
            "patch mutatingwebhookconfigurations tombolo",
            "patch serviceimports/status",
            "patch configmaps coredns in kube-system",
            "delete services in tombolo-system",
        ] {
            assert!(given.contains(one), "{one}: {given:?}");
        }
        assert!(!given.iter().any(|one| one.contains("get secrets")), "it gives none of them to be read");
    }

    #[test]
    fn nobody_gives_what_he_has_not() {
        let right = Right { verb: "list".to_owned(), resource: "nodes".to_owned(), ..Right::default() };
        let one = std::slice::from_ref(&right);
        assert_eq!(escalation(&[], one).verdict, Verdict::Good, "he may escalate");
        assert_eq!(escalation(one, &[]).verdict, Verdict::Good, "he has it");
        let found = escalation(one, one);
        assert!(found.verdict == Verdict::Missing && found.said.contains("list nodes"), "{found:?}");
        assert_eq!((applying(one).verdict, taking_out(one).verdict), (Verdict::Missing, Verdict::Less));
    }
}
