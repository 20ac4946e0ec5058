//! One check of one endpoint. The caller gives the deadline.

use crate::index::Probe;
use std::io::{Error, ErrorKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The status line of any answer is shorter, in bytes.
const MAX_STATUS_LINE: usize = 512;

/// Connects, and asks where the check is by HTTP. Cancel-safe: dropping it closes the connection.
pub(super) async fn check(probe: &Probe) -> Result<(), Error> {
    let mut stream = TcpStream::connect(probe.address).await?;
    if stream.local_addr()? == stream.peer_addr()? {
        // The kernel took the port itself as source port and connected the socket to itself: nobody listens.
        return Err(ErrorKind::ConnectionRefused.into());
    }
    let Some(path) = &probe.http else { return Ok(()) };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: tombolo-agent\r\naccept: */*\r\nconnection: close\r\n\r\n",
        probe.address
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(64);
    while !answer.contains(&b'\n') {
        if answer.len() > MAX_STATUS_LINE || stream.read_buf(&mut answer).await? == 0 {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    match status(&answer) {
        Some(200..=399) => Ok(()),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// The status of an answer that begins so.
fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|byte| *byte == b'\n').next()?).ok()?;
    let rest = line.strip_prefix("HTTP/1.")?;
    let (_, rest) = rest.split_once(' ')?;
    let code = rest.trim_end().split(' ').next()?;
    if code.len() == 3 { code.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nx: y\r\n", Some(200)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/1.1 20 OK\r\n", None),
            ("HTTP/2 200\r\n", None),
            ("SSH-2.0-x\r\n", None),
            ("\r\n", None),
        ] {
            assert_eq!(status(answer.as_bytes()), expected, "{answer:?}");
        }
    }
}
