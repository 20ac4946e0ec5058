//! The custom resources of the Multi-Cluster Services API, which are there or not, in one of two versions.

use super::{Asked, Finding, Verdict, finding, refused};
use serde_json::Value;

const WHAT: &str = "Multi-Cluster Services API";
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];

pub(super) async fn look(asked: &Asked<'_>) -> Finding {
    let crd = |plural: &str| {
        format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.multicluster.x-k8s.io")
    };
    let both = (asked.find(&crd("serviceexports")).await, asked.find(&crd("serviceimports")).await);
    match both {
        (Ok(exports), Ok(imports)) => found(exports.as_ref(), imports.as_ref()),
        (Err(error), _) | (_, Err(error)) => {
            finding(WHAT, Verdict::Less, format!("its custom resources can't be read: {}", refused(&error)))
        }
    }
}

fn found(exports: Option<&Value>, imports: Option<&Value>) -> Finding {
    let (Some(exports), Some(imports)) = (exports, imports) else {
        let said = "not there, and not needed. For ServiceExport and clusterset.local, apply config/crd of sigs.k8s.io/mcs-api";
        return finding(WHAT, Verdict::Good, said);
    };
    let served = |crd: &Value| -> Vec<Value> {
        let all = crd["spec"]["versions"].as_array().into_iter().flatten();
        all.filter(|version| version["served"] == true).cloned().collect()
    };
    let (exports, imports) = (served(exports), served(imports));
    let has = |all: &[Value], wanted: &str| all.iter().any(|version| version["name"] == wanted);
    let Some(version) = VERSIONS.into_iter().find(|wanted| has(&exports, wanted) && has(&imports, wanted))
    else {
        let names: Vec<&str> = imports.iter().filter_map(|version| version["name"].as_str()).collect();
        let said = format!(
            "served as {}, of which none is known here ({}); exports are left alone until config/crd of sigs.k8s.io/mcs-api is applied",
            names.join(", "),
            VERSIONS.join(", ")
        );
        return finding(WHAT, Verdict::Less, said);
    };
    let of_imports = imports.iter().find(|one| one["name"] == version);
    let families = of_imports.is_some_and(|one| {
        one.pointer("/schema/openAPIV3Schema/properties/spec/properties/ipFamilies").is_some()
    });
    if families {
        return finding(WHAT, Verdict::Good, version);
    }
    let said = format!(
        "{version} of an older day, without ipFamilies: ServiceImports lack those and their conditions; apply config/crd of today's \
         sigs.k8s.io/mcs-api"
    );
    finding(WHAT, Verdict::Less, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions() {
        let crd = |name: &str, families: bool| {
            let spec = if families { json!({ "ipFamilies": {} }) } else { json!({}) };
            let schema = json!({ "openAPIV3Schema": { "properties": { "spec": { "properties": spec } } } });
            json!({ "spec": { "versions": [{ "name": name, "served": true, "schema": schema }] } })
        };
        let verdict =
            |name: &str, families| found(Some(&crd(name, false)), Some(&crd(name, families))).verdict;
        assert_eq!(verdict("v1beta1", true), Verdict::Good);
        assert_eq!(verdict("v1alpha1", true), Verdict::Good);
        assert_eq!(verdict("v1alpha1", false), Verdict::Less);
        assert_eq!(verdict("v1", true), Verdict::Less);
        assert_eq!(found(None, None).verdict, Verdict::Good, "it is not needed");
        let mut off = crd("v1beta1", true);
        off["spec"]["versions"][0]["served"] = json!(false);
        assert_eq!(found(Some(&off), Some(&off)).verdict, Verdict::Less);
    }
}
