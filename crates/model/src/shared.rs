//! Domains that nobody has for himself: whoever names a global namespace so answers, in every cluster, for names of everybody else.
//! The rule is small and catches what is typed by mistake, or tried; it is not the list of public suffixes, which changes every week.

/// Endings that the network, or clouds and clusters, give a meaning to.
const ENDINGS: [&str; 7] =
    ["arpa", "svc", "onion", "google.internal", "ec2.internal", "compute.internal", "cluster.internal"];

/// Suffixes under which many have names; nobody has the suffix itself.
const SUFFIXES: [&str; 22] = [
    "amazonaws.com",
    "appspot.com",
    "azure.com",
    "azurecr.io",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudfront.net",
    "docker.io",
    "firebaseapp.com",
    "github.io",
    "gitlab.io",
    "googleapis.com",
    "googleusercontent.com",
    "herokuapp.com",
    "k8s.io",
    "netlify.app",
    "pages.dev",
    "run.app",
    "vercel.app",
    "web.app",
    "windows.net",
    "workers.dev",
];

/// First labels of a country's suffixes of two labels, as in co.uk.
const SECOND_LEVEL: [&str; 17] = [
    "ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "govt", "gub", "gv", "mil", "ne", "net", "or",
    "org", "sch",
];

/// The ending or suffix for which a domain is not one's own; `text` has two labels or more, in lower case.
pub(crate) fn shared(text: &str) -> Option<&'static str> {
    let ends =
        |ending: &&str| text.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if let Some(ending) = ENDINGS.into_iter().find(ends) {
        return Some(ending);
    }
    if let Some(suffix) = SUFFIXES.into_iter().find(|suffix| *suffix == text) {
        return Some(suffix);
    }
    let (first, top) = text.split_once('.')?;
    let of_country = top.len() == 2 && SECOND_LEVEL.contains(&first);
    of_country.then_some("a country's suffix")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_have_a_part_in_is_nobodys() {
        for text in [
            "in-addr.arpa",
            "ip6.arpa",
            "10.in-addr.arpa",
            "default.svc",
            "co.uk",
            "com.au",
            "ne.jp",
            "github.io",
            "amazonaws.com",
            "metadata.google.internal",
            "eu-west-1.compute.internal",
        ] {
            assert!(shared(text).is_some(), "{text}");
        }
        for text in [
            "acme.example.com",
            "example.com",
            "acme.co.uk",
            "corp.internal",
            "acme.github.io",
            "notarpa.com",
            "co.example",
            "shop.io",
            "t.co",
        ] {
            assert_eq!(shared(text), None, "{text}");
        }
    }
}
