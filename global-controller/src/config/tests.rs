//! What options mean, and which are refused.

use super::*;

fn parse(arguments: &[&str], environment: Environment) -> Result<Config, ConfigError> {
    let all = ["tombolo-controller", "serve", "--data", "/tmp/x"].iter().chain(arguments);
    let Command::Serve(options) = Cli::parse_from(all).command else { panic!("serve was asked for") };
    Config::new(*options, environment)
}

#[test]
fn says_all_at_once() {
    let url = Environment { database_url: Some("mysql://x".into()), pg_bin: None };
    let error = parse(&["--vip-pool", "10.0.0.0/30", "--public-url", "http://x"], url).unwrap_err();
    assert_eq!(error.problems.len(), 4, "{error}");
}

#[test]
fn is_quiet_about_passwords() {
    let url = Environment { database_url: Some("postgres://u:geheim@h/d".into()), pg_bin: None };
    let config = parse(&["--ca-key-file", "/k"], url.clone()).unwrap();
    assert!(!format!("{config:?}{url:?}").contains("geheim"));
}

#[test]
fn a_file_with_the_databases_url_comes_before_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    let arguments = ["--ca-key-file", "/k", "--database-url-file", file.to_str().unwrap()];
    let environment = Environment { database_url: Some("postgres://other/d".into()), pg_bin: None };
    let error = parse(&arguments, environment.clone()).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    std::fs::write(&file, "postgres://h/d\n").unwrap();
    let config = parse(&arguments, environment.clone()).unwrap();
    assert!(matches!(config.database, Database::Url(url) if url == "postgres://h/d"));
    // every replica needs the same key file, so it is not one of the data folder
    let error = parse(&arguments[2..], environment).unwrap_err();
    assert!(error.to_string().contains("give --ca-key-file"), "{error}");
}

#[test]
fn hosts() {
    assert_eq!(host_of("https://a.example.com:8443").as_deref(), Some("a.example.com"));
    assert_eq!(host_of("https://[::1]:8443/").as_deref(), Some("::1"));
    assert_eq!(host_of("https://a.example.com/x"), None);
    assert_eq!(host_of("a.example.com"), None);
}

#[test]
fn the_private_database_needs_nothing() {
    let config = parse(&[], Environment::default()).unwrap();
    assert_eq!(config.ca_key_file, Path::new("/tmp/x/ca.key"));
    assert!(matches!(config.database, Database::Private(None)));
}
