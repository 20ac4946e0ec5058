//! A server that speaks first and then echoes, and its client.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    thread,
    time::Duration,
};
use tombolo_testkit::netlab::Namespace;

/// No step of a conversation takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves on the address for as long as the process lives: says its word (two letters), then echoes to the end.
pub(crate) fn serve(namespace: &Namespace, address: SocketAddr, word: &'static str) {
    let listener = namespace.enter(move || TcpListener::bind(address).expect("the server's address"));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo(stream, word));
        }
    });
}

fn echo(mut stream: TcpStream, word: &str) -> io::Result<()> {
    stream.write_all(word.as_bytes())?;
    let mut reader = stream.try_clone()?;
    io::copy(&mut reader, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

/// A connection from the namespace on which the server has said its word.
pub(crate) fn open(from: &Namespace, to: SocketAddr) -> io::Result<(TcpStream, String)> {
    from.enter(move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut word = [0; 2];
        stream.read_exact(&mut word)?;
        Ok((stream, String::from_utf8_lossy(&word).into_owned()))
    })
}

/// What an application of the pod hears that asks for a name, as applications do: a program of its own, of a user without rights, by the pod's
/// own `resolv.conf`. `family` is nc's: -4 or -6.
pub(crate) fn application(from: &Namespace, family: &str, name: &str, said: &str) -> io::Result<String> {
    let mut command = from.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]);
    command.args(["nc.openbsd", "-N", family, "-w", "10", name]).arg(crate::PORT.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Its end is what makes the server end.
    child.stdin.take().ok_or_else(|| io::Error::other("no stdin"))?.write_all(said.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The server's word.
pub(crate) fn greeting(from: &Namespace, to: SocketAddr) -> io::Result<String> {
    open(from, to).map(|(_, word)| word)
}

/// Sends bytes, closes its half, and reads to the end: the server's word, and what came back.
pub(crate) fn exchange(from: &Namespace, to: SocketAddr, sent: &[u8]) -> io::Result<(String, Vec<u8>)> {
    let (mut stream, word) = open(from, to)?;
    let mut writer = stream.try_clone()?;
    let bytes = sent.to_owned();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    writing.join().map_err(|_| io::Error::other("the writer panicked"))??;
    Ok((word, back))
}

/// Bytes of all values, that begin and end with the marker.
pub(crate) fn payload(length: u32, marker: &[u8]) -> Vec<u8> {
    let middle = (0..length).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    marker.iter().copied().chain(middle).chain(marker.iter().copied()).collect()
}
