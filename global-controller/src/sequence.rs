//! Whether an update of a cluster's inventory follows what is stored. Pure.

/// The last update of a cluster's inventory that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The agent's process.
    pub epoch: String,
    /// Its count.
    pub sequence: i64,
}

/// What is to be done with an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It follows.
    Store,
    /// It is stored already.
    Known,
    /// What it changes is not here.
    Resend,
}

/// What is to be done with an update, where `stored` is the last one that was stored.
#[must_use]
pub fn plan(stored: Option<&Mark>, epoch: &str, sequence: i64, whole: bool) -> Plan {
    match stored {
        Some(mark) if mark.epoch == epoch && sequence <= mark.sequence => {
            if sequence == mark.sequence {
                Plan::Known
            } else {
                Plan::Resend
            }
        }
        Some(mark) if !whole => {
            if mark.epoch == epoch && sequence == mark.sequence + 1 {
                Plan::Store
            } else {
                Plan::Resend
            }
        }
        None if !whole => Plan::Resend,
        _ => Plan::Store,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_follows() {
        let mark = Mark { epoch: "a".into(), sequence: 5 };
        for (stored, epoch, sequence, whole, expected) in [
            (None, "a", 1, true, Plan::Store),
            (None, "a", 1, false, Plan::Resend),
            (Some(&mark), "a", 6, false, Plan::Store),
            (Some(&mark), "a", 5, false, Plan::Known),
            (Some(&mark), "a", 5, true, Plan::Known),
            (Some(&mark), "a", 4, true, Plan::Resend),
            (Some(&mark), "a", 7, false, Plan::Resend),
            (Some(&mark), "a", 9, true, Plan::Store),
            (Some(&mark), "b", 1, true, Plan::Store),
            (Some(&mark), "b", 6, false, Plan::Resend),
        ] {
            assert_eq!(
                plan(stored, epoch, sequence, whole),
                expected,
                "{stored:?} {epoch} {sequence} {whole}"
            );
        }
    }
}
