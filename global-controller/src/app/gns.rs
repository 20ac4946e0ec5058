//! Global namespaces: a domain, and whose services it names.

use super::{
    Deps,
    caller::Scope,
    capture::CaptureMode,
    error::{Checks, Kind, Refusal, Result},
    labels,
    once::{Answer, OnceKey},
    page::{List, Page},
    version::Expected,
    work::{Begun, Subject, Work},
};
use crate::store::{Change, Tx, gns::GnsRow};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use tombolo_model::{
    ClusterName, DnsLabel, Domain, NameError, NamespaceName,
    id::GnsId,
    intent::{Labels, MappingRule, Selector},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// A global namespace.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GlobalNamespace {
    /// Its id.
    pub(crate) id: Uuid,
    /// Its name, one in the organization.
    #[schema(example = "acme")]
    pub(crate) name: String,
    /// Its domain: services are called `<service>.<domain>`.
    #[schema(example = "acme.example.com")]
    pub(crate) domain: String,
    /// Whose services it names: what any of the rules chooses.
    pub(crate) rules: Vec<Rule>,
    /// How pods of the namespaces that the rules choose reach global names; absent where it has no say in that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capture: Option<CaptureMode>,
    /// Rises with each edit; also the ETag.
    pub(crate) version: i64,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
    /// When it was edited last.
    pub(crate) updated_at: DateTime<Utc>,
}

/// Namespaces of clusters whose services belong to a global namespace.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Which clusters.
    pub(crate) cluster: RuleSelector,
    /// Which of their namespaces.
    pub(crate) namespace: RuleSelector,
}

/// Chooses by name, or by labels that must all be there. An empty set of labels chooses everything.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum RuleSelector {
    /// The one with this name.
    Name(String),
    /// All with these labels.
    Labels(Labels),
}

/// A new global namespace.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGlobalNamespace {
    /// Its name: one DNS label.
    #[schema(example = "acme")]
    pub(crate) name: String,
    /// Its domain. No two of an organization overlap.
    #[schema(example = "acme.example.com")]
    pub(crate) domain: String,
    /// Whose services it names.
    pub(crate) rules: Vec<Rule>,
    /// How pods of the namespaces that the rules choose reach global names. A label `tombolo.io/capture` of the namespace goes
    /// before it; where several global namespaces choose for one, the first by name does. Absent: the installation's default.
    #[serde(default)]
    pub(crate) capture: Option<CaptureMode>,
}

/// What a global namespace is to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GlobalNamespaceUpdate {
    /// Its name, which stays: where it is given, it is that of the path.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Its domain.
    #[schema(example = "acme.example.com")]
    pub(crate) domain: String,
    /// Whose services it names.
    pub(crate) rules: Vec<Rule>,
    /// How pods of the namespaces that the rules choose reach global names. Absent: as it is, for an older program does not know it.
    /// Null: it has no say in that any more.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<CaptureMode>)]
    pub(crate) capture: Option<Option<CaptureMode>>,
}

/// What is there, be it null.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The most rules of a global namespace.
const MOST_RULES: usize = 100;

impl GlobalNamespace {
    fn show(row: &GnsRow) -> Self {
        fn selector<N: ToString>(selector: &Selector<N>) -> RuleSelector {
            match selector {
                Selector::Name(name) => RuleSelector::Name(name.to_string()),
                Selector::Labels(labels) => RuleSelector::Labels(labels.clone()),
            }
        }
        let rules = row.rules.iter();
        Self {
            id: row.id.as_uuid(),
            name: row.name.to_string(),
            domain: row.domain.to_string(),
            rules: rules
                .map(|rule| Rule { cluster: selector(&rule.cluster), namespace: selector(&rule.namespace) })
                .collect(),
            capture: row.capture.map(Into::into),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

fn check_selector<N>(
    checks: &mut Checks,
    field: &str,
    selector: RuleSelector,
    parse: fn(&str) -> std::result::Result<N, NameError>,
    example: &str,
) -> Option<Selector<N>> {
    match selector {
        RuleSelector::Name(name) => {
            checks.name(format!("{field}.name"), &name, parse, example).map(Selector::Name)
        }
        RuleSelector::Labels(labels) => {
            labels::check(checks, &format!("{field}.labels"), &labels);
            Some(Selector::Labels(labels))
        }
    }
}

fn check_rules(checks: &mut Checks, rules: Vec<Rule>) -> Vec<MappingRule> {
    if rules.len() > MOST_RULES {
        checks.wrong(
            "rules",
            format!("has {} rules", rules.len()),
            format!("use at most {MOST_RULES}; choose by labels where there are many"),
        );
        return Vec::new();
    }
    let rules = rules.into_iter().enumerate().filter_map(|(n, rule)| {
        let cluster = check_selector(
            checks,
            &format!("rules[{n}].cluster"),
            rule.cluster,
            ClusterName::parse,
            "cluster-1",
        );
        let namespace = check_selector(
            checks,
            &format!("rules[{n}].namespace"),
            rule.namespace,
            NamespaceName::parse,
            "default",
        );
        Some(MappingRule { cluster: cluster?, namespace: namespace? })
    });
    rules.collect()
}

async fn check_overlap(tx: &mut Tx, scope: &Scope, own: GnsId, domain: &Domain) -> Result<()> {
    let others = tx.gns_domains(scope.org.id).await?;
    let Some((_, name, other)) = others.iter().find(|(id, _, other)| *id != own && other.overlaps(domain))
    else {
        return Ok(());
    };
    let detail = format!("The domain {domain} overlaps {other}, the domain of the global namespace {name}.");
    Err(Refusal::new(Kind::DomainOverlap, detail).field(
        "domain",
        format!("overlaps {other}"),
        "choose a domain that neither contains another one nor lies in one",
    ))
}

async fn find(tx: &mut Tx, scope: &Scope, name: &str) -> Result<GnsRow> {
    let missing = || Refusal::not_found("global namespace", name);
    let parsed = DnsLabel::parse(name).ok().filter(|n| n.as_str() == name).ok_or_else(missing)?;
    tx.gns(scope.org.id, &parsed).await?.ok_or_else(missing)
}

/// Makes a global namespace.
///
/// # Errors
/// Fields that cannot be taken; a name that is taken; a domain that overlaps another one.
pub(crate) async fn create(
    deps: &Deps,
    scope: &Scope,
    new: NewGlobalNamespace,
    once: Option<OnceKey>,
) -> Result<Answer> {
    let mut checks = Checks::default();
    let name = checks.name("name", &new.name, DnsLabel::parse, "acme");
    let domain = checks.name("domain", &new.domain, Domain::choose, "acme.example.com");
    let rules = check_rules(&mut checks, new.rules);
    checks.done()?;
    let (Some(name), Some(domain)) = (name, domain) else {
        return Err(Refusal::internal("a name passed its check and is not there"));
    };

    let mut work = match Work::begin_once(deps, scope, once).await? {
        Begun::Work(work) => work,
        Begun::Done(answer) => return Ok(answer),
    };
    let org = scope.org.id;
    let id = GnsId::new(Uuid::now_v7());
    if work.tx.gns(org, &name).await?.is_some() {
        return Err(Refusal::already_exists("global namespace", "name", name.as_str()));
    }
    check_overlap(&mut work.tx, scope, id, &domain).await?;
    let (capture, at) = (new.capture.map(Into::into), work.now);
    let row = GnsRow { id, name, domain, rules, capture, version: 1, created_at: at, updated_at: at };
    work.tx.insert_gns(org, &row).await?;
    work.tx.changed(org, Change::Gns(id));
    let shown = GlobalNamespace::show(&row);
    let subject = Subject { kind: "global_namespace", name: row.name.as_str(), id: id.as_uuid() };
    work.audit("global_namespace.create", subject, None, Some(&shown)).await?;
    let location = format!("/organizations/{}/global-namespaces/{}", scope.org.name, row.name);
    work.answer(Answer::new(location, Some(row.version), &shown)?).await
}

/// Global namespaces by name.
///
/// # Errors
/// As any query.
pub(crate) async fn list(deps: &Deps, scope: &Scope, page: &Page) -> Result<List<GlobalNamespace>> {
    let mut tx = deps.store.begin().await?;
    let rows = tx.list_gns(scope.org.id, page.after(), page.fetch()).await?;
    Ok(page.list(rows.iter().map(GlobalNamespace::show).collect(), |gns| gns.name.clone()))
}

/// One global namespace.
///
/// # Errors
/// [`Kind::NotFound`].
pub(crate) async fn get(deps: &Deps, scope: &Scope, name: &str) -> Result<GlobalNamespace> {
    let mut tx = deps.store.begin().await?;
    Ok(GlobalNamespace::show(&find(&mut tx, scope, name).await?))
}

/// Replaces domain, rules and capture mode.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::PreconditionFailed`], fields that cannot be taken, [`Kind::DomainOverlap`].
pub(crate) async fn replace(
    deps: &Deps,
    scope: &Scope,
    name: &str,
    update: GlobalNamespaceUpdate,
    expected: &Expected,
) -> Result<GlobalNamespace> {
    let mut checks = Checks::default();
    if update.name.as_deref().is_some_and(|given| given != name) {
        checks.wrong(
            "name",
            "is another one than in the path",
            "leave it out, or make a new global namespace",
        );
    }
    let domain = checks.name("domain", &update.domain, Domain::choose, "acme.example.com");
    let rules = check_rules(&mut checks, update.rules);
    checks.done()?;
    let Some(domain) = domain else {
        return Err(Refusal::internal("a domain passed its check and is not there"));
    };

    let mut work = Work::begin(deps, scope).await?;
    let old = find(&mut work.tx, scope, name).await?;
    expected.check(old.version)?;
    check_overlap(&mut work.tx, scope, old.id, &domain).await?;
    let capture = update.capture.map_or(old.capture, |said| said.map(Into::into));
    let version = old.version + 1;
    let row = GnsRow { domain, rules, capture, version, updated_at: work.now, ..old.clone() };
    work.tx.update_gns(scope.org.id, &row).await?;
    work.tx.changed(scope.org.id, Change::Gns(row.id));
    let (before, after) = (GlobalNamespace::show(&old), GlobalNamespace::show(&row));
    let subject = Subject { kind: "global_namespace", name, id: row.id.as_uuid() };
    work.audit("global_namespace.update", subject, Some(&before), Some(&after)).await?;
    work.commit().await?;
    Ok(after)
}

/// Removes a global namespace: its names are answered no more. Their virtual IPs stay reserved for them.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::PreconditionFailed`].
pub(crate) async fn remove(deps: &Deps, scope: &Scope, name: &str, expected: &Expected) -> Result<()> {
    let mut work = Work::begin(deps, scope).await?;
    let row = find(&mut work.tx, scope, name).await?;
    expected.check(row.version)?;
    work.tx.delete_gns(scope.org.id, row.id).await?;
    work.tx.changed(scope.org.id, Change::Gns(row.id));
    let subject = Subject { kind: "global_namespace", name, id: row.id.as_uuid() };
    work.audit("global_namespace.delete", subject, Some(&GlobalNamespace::show(&row)), None).await?;
    work.commit().await
}
