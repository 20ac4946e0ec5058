//! What is asked for, from the environment.

use super::Shape;
use std::{str::FromStr, time::Duration};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `SCALE_CLUSTERS`: how many clusters, one world after the other.
    pub clusters: Vec<usize>,
    /// `SCALE_MEMBERS`: clusters of a global namespace: so many are affected by a change.
    pub members: usize,
    /// `SCALE_SERVICES`: services of a global namespace.
    pub services: usize,
    /// `SCALE_COPIES`: how many clusters serve each.
    pub copies: usize,
    /// `SCALE_ENDPOINTS`: endpoints of each, over all that serve it.
    pub endpoints: u32,
    /// `SCALE_RATE`: changes of an endpoint a second.
    pub rate: u32,
    /// `SCALE_SECONDS`: how long they go on.
    pub churn: Duration,
    /// `SCALE_IDLE`: how many seconds nothing happens.
    pub idle: Duration,
    /// `SCALE_OBJECTS`: global names that there are at least when lists are read; the last world grows until there are.
    pub objects: usize,
    /// `SCALE_PATIENCE`: how many seconds each part of the run may take; what takes longer is given up, and what was measured stands.
    pub patience: Duration,
    /// `SCALE_CHECK=1`: a target that is missed is an error, not only one that says that something was lost.
    pub check: bool,
}

impl Options {
    /// Reads them; what is not given has its usual value.
    ///
    /// # Errors
    /// Which one can't be taken, and what it may be.
    pub fn read(given: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str, usual: u64, least: u64| -> Result<u64, String> {
            let Some(text) = given(name).filter(|text| !text.is_empty()) else { return Ok(usual) };
            parse(name, &text).and_then(|found: u64| match found >= least {
                true => Ok(found),
                false => Err(format!("{name}={text} is less than {least}")),
            })
        };
        let count = |name: &str, usual: u64| -> Result<usize, String> {
            number(name, usual, 1).and_then(|found| usize::try_from(found).map_err(|error| error.to_string()))
        };
        let few = |name: &str, usual: u64| -> Result<u32, String> {
            number(name, usual, 1).and_then(|found| u32::try_from(found).map_err(|error| error.to_string()))
        };
        let clusters =
            given("SCALE_CLUSTERS").filter(|text| !text.is_empty()).unwrap_or_else(|| "10,100,1000".into());
        let clusters = clusters
            .split(',')
            .map(|one| parse("SCALE_CLUSTERS", one.trim()))
            .collect::<Result<Vec<usize>, _>>()?;
        let options = Self {
            clusters,
            members: count("SCALE_MEMBERS", 10)?,
            services: count("SCALE_SERVICES", 100)?,
            copies: count("SCALE_COPIES", 2)?,
            endpoints: few("SCALE_ENDPOINTS", 10)?,
            rate: few("SCALE_RATE", 25)?,
            churn: Duration::from_secs(number("SCALE_SECONDS", 30, 1)?),
            idle: Duration::from_secs(number("SCALE_IDLE", 30, 1)?),
            objects: usize::try_from(number("SCALE_OBJECTS", 100_000, 0)?).map_err(|e| e.to_string())?,
            patience: Duration::from_secs(number("SCALE_PATIENCE", 900, 1)?),
            check: given("SCALE_CHECK").is_some_and(|text| text == "1"),
        };
        options.fit()?;
        Ok(options)
    }

    fn fit(&self) -> Result<(), String> {
        if self.copies > self.members {
            return Err("SCALE_COPIES is more than SCALE_MEMBERS: a cluster serves a service once".to_owned());
        }
        let wrong = self.clusters.iter().find(|all| **all == 0 || **all % self.members.min(**all) != 0);
        if let Some(wrong) = wrong {
            return Err(format!("SCALE_CLUSTERS has {wrong}, which SCALE_MEMBERS does not divide"));
        }
        if self.clusters.iter().any(|all| self.copies > *all || *all > 60_000) {
            return Err("SCALE_CLUSTERS has less than SCALE_COPIES, or more than 60000".to_owned());
        }
        Ok(())
    }

    /// The world with so many clusters.
    #[must_use]
    pub fn shape(&self, clusters: usize) -> Shape {
        Shape {
            clusters,
            members: self.members.min(clusters),
            services: self.services,
            copies: self.copies,
            endpoints: self.endpoints,
        }
    }
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name}: {text:?} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Options, String> {
        Options::read(|name| given.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn nothing_is_given() {
        let options = read(&[("SCALE_RATE", "")]).unwrap();
        assert_eq!(
            (options.clusters.as_slice(), options.rate, options.check),
            (&[10, 100, 1000][..], 25, false)
        );
        let shape = options.shape(1000);
        assert_eq!((shape.all_services(), shape.all_endpoints()), (10_000, 100_000));
    }

    #[test]
    fn what_is_given_counts() {
        let options = read(&[
            ("SCALE_CLUSTERS", "10, 40"),
            ("SCALE_MEMBERS", "20"),
            ("SCALE_SECONDS", "5"),
            ("SCALE_PATIENCE", "60"),
            ("SCALE_CHECK", "1"),
        ])
        .unwrap();
        assert_eq!(options.clusters, [10, 40]);
        assert_eq!(options.shape(10).members, 10, "a world of ten has no twenty");
        assert!(options.check && options.churn == Duration::from_secs(5));
        assert_eq!(options.patience, Duration::from_secs(60));
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (given, said) in [
            ([("SCALE_CLUSTERS", "ten"), ("", "")], "SCALE_CLUSTERS: \"ten\" is not a number"),
            (
                [("SCALE_CLUSTERS", "15"), ("", "")],
                "SCALE_CLUSTERS has 15, which SCALE_MEMBERS does not divide",
            ),
            (
                [("SCALE_CLUSTERS", "0"), ("", "")],
                "SCALE_CLUSTERS has 0, which SCALE_MEMBERS does not divide",
            ),
            ([("SCALE_RATE", "0"), ("", "")], "SCALE_RATE=0 is less than 1"),
            (
                [("SCALE_COPIES", "3"), ("SCALE_MEMBERS", "2")],
                "SCALE_COPIES is more than SCALE_MEMBERS: a cluster serves a service once",
            ),
        ] {
            assert_eq!(read(&given).unwrap_err(), said);
        }
    }
}
