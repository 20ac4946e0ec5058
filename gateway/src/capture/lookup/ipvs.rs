//! Whether IPVS balances here, as kube-proxy has it in one of its modes: it takes the connections that it knows between the local route and the
//! socket, so that a lookup never sees them.

use std::fs;

/// Why no lookup can be used, where IPVS has services in this network namespace.
pub(crate) fn in_the_way() -> Option<String> {
    // a kernel without it has no such file
    let text = fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default();
    has_services(&text)
        .then(|| "IPVS (kube-proxy's mode ipvs) takes connections before a lookup could".to_owned())
}

/// Each service is a line that begins with its protocol; its servers' lines begin with an arrow.
fn has_services(text: &str) -> bool {
    text.lines().any(|line| ["TCP ", "UDP ", "SCTP ", "FWM "].iter().any(|kind| line.starts_with(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_has_it_and_balances_nothing_is_none() {
        let empty = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                     -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
        assert!(!has_services(empty) && !has_services(""));
        let one =
            format!("{empty}TCP  0A600001:01BB rr\n  -> AC1F010B:192B      Masq    1      0          0\n");
        assert!(has_services(&one));
    }
}
