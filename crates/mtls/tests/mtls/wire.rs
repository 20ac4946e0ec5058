//! A wire of ours against rustls' own sessions, and against itself: it must be TLS to whoever is at the other end.

use crate::common::ALPN;
use rustls::AlertDescription;
use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex, split,
};
use tombolo_model::{GatewayRole, SpiffeId};
use tombolo_mtls::{Cork, Expect, HandshakeError, Peer, Wire, accept, client_config, connect, server_config};
use tombolo_testkit::ca::{Organization, valid};

struct Two {
    client: Arc<rustls::ClientConfig>,
    server: Arc<rustls::ServerConfig>,
    ids: [SpiffeId; 2],
}

fn two() -> Two {
    let mut acme = Organization::new("acme.tombolo.internal");
    let (one, other) = (acme.join("cluster-1"), acme.join("cluster-2"));
    let ids = [one.gateway(GatewayRole::Egress), other.gateway(GatewayRole::Ingress)];
    let store = acme.store();
    Two {
        client: client_config(&store, &one.credentials(&ids[0]), Expect::AnyInBundle, ALPN),
        server: server_config(&store, &other.credentials(&ids[1]), ALPN),
        ids,
    }
}

fn name() -> rustls_pki_types::ServerName<'static> {
    "gateway".try_into().unwrap()
}

type Made<T> = Result<(Wire<T>, Cork<T>, Peer), HandshakeError>;

async fn dials<T: AsyncRead + AsyncWrite + Unpin>(io: T, config: Arc<rustls::ClientConfig>) -> Made<T> {
    let (tls, peer) = connect(io, config, name()).await?;
    let (wire, cork) = Wire::over(tls);
    Ok((wire, cork, peer))
}

async fn answers<T: AsyncRead + AsyncWrite + Unpin>(io: T, config: Arc<rustls::ServerConfig>) -> Made<T> {
    let (tls, peer) = accept(io, config).await?;
    let (wire, cork) = Wire::over(tls);
    Ok((wire, cork, peer))
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Much and little goes both ways at once, and each end.
async fn exchange(near: impl AsyncRead + AsyncWrite + Unpin, far: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut near_reads, mut near_writes) = split(near);
    let (mut far_reads, mut far_writes) = split(far);
    let sent = bytes(1_000_003);
    let up = async {
        near_writes.write_all(&sent).await.unwrap();
        for piece in sent.chunks(1000).take(200) {
            near_writes.write_all(piece).await.unwrap();
            near_writes.flush().await.unwrap();
        }
        near_writes.shutdown().await.unwrap();
    };
    let down = async {
        far_writes.write_all(&sent).await.unwrap();
        far_writes.shutdown().await.unwrap();
    };
    let (mut at_far, mut at_near) = (Vec::new(), Vec::new());
    let (.., up_read, down_read) =
        tokio::join!(up, down, far_reads.read_to_end(&mut at_far), near_reads.read_to_end(&mut at_near));
    assert_eq!((up_read.unwrap(), down_read.unwrap()), (1_200_003, 1_000_003));
    assert!(at_near == sent && at_far[..1_000_003] == sent && at_far[1_000_003..] == sent[..200_000]);
}

#[tokio::test]
async fn speaks_with_rustls_as_client_and_as_server() {
    let Two { client, server, ids } = two();
    let (near, far) = duplex(40_000);
    let (wire, plain) = tokio::join!(dials(near, client.clone()), accept(far, server.clone()));
    let ((wire, _, peer), (plain, seen)) = (wire.unwrap(), plain.unwrap());
    assert_eq!((&peer.id, &seen.id), (&ids[1], &ids[0]));
    exchange(wire, plain).await;

    let (near, far) = duplex(777);
    let (plain, wire) = tokio::join!(connect(near, client, name()), answers(far, server));
    exchange(plain.unwrap().0, wire.unwrap().0).await;
}

async fn wires(size: usize) -> [(Wire<DuplexStream>, Cork<DuplexStream>); 2] {
    let Two { client, server, .. } = two();
    let (near, far) = duplex(size);
    let (near, far) = tokio::join!(dials(near, client), answers(far, server));
    let ((near, near_cork, _), (far, far_cork, _)) = (near.unwrap(), far.unwrap());
    [(near, near_cork), (far, far_cork)]
}

#[tokio::test]
async fn speaks_with_itself() {
    let [(near, _), (far, _)] = wires(5_000).await;
    exchange(near, far).await;
}

/// A client may send with the last message of its handshake.
#[tokio::test]
async fn what_comes_right_behind_the_handshake_is_kept() {
    let Two { client, server, .. } = two();
    let (near, far) = duplex(100_000);
    let sends = async {
        let (mut plain, _) = connect(near, client, name()).await.unwrap();
        plain.write_all(&bytes(50_000)).await.unwrap();
        plain.shutdown().await.unwrap();
        plain
    };
    // all of it is in the pipe before the server reads the end of the handshake
    let late = async {
        let (wire, ..) = answers(Slow(far), server).await.unwrap();
        wire
    };
    let (_plain, mut wire) = tokio::join!(sends, late);
    let mut all = Vec::new();
    wire.read_to_end(&mut all).await.unwrap();
    assert!(all == bytes(50_000));
}

/// Reads as much as there is, but not at once.
struct Slow(DuplexStream);

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if rand_bit(into.remaining()) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

/// Now and then.
fn rand_bit(seed: usize) -> bool {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static TURN: AtomicUsize = AtomicUsize::new(0);
    !(TURN.fetch_add(1, Ordering::Relaxed) + seed).is_multiple_of(3)
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The peer asks, as often as it likes; what follows is read with its new keys, and answered with new ones.
#[tokio::test]
async fn keys_change_under_way() {
    let Two { client, server, .. } = two();
    let (near, far) = duplex(1 << 20);
    let (wire, plain) = tokio::join!(dials(near, client), accept(far, server));
    let ((mut wire, cork, _), (mut plain, _)) = (wire.unwrap(), plain.unwrap());
    let mut got = [0; 5];
    for turn in 0..70 {
        if turn % 3 == 0 {
            plain.get_mut().1.refresh_traffic_keys().unwrap();
        }
        plain.write_all(b"again").await.unwrap();
        wire.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"again");
        // with a cork, from the second half on
        if turn < 35 {
            wire.write_all(b"there").await.unwrap();
            wire.flush().await.unwrap();
        } else {
            poll_fn(|cx| {
                let gathers = cork.poll(cx, |cx| {
                    let written = Pin::new(&mut wire).poll_write(cx, b"there");
                    assert!(matches!(written, Poll::Ready(Ok(5))));
                    Poll::<()>::Pending
                });
                assert!(gathers.is_pending());
                Poll::Ready(())
            })
            .await;
        }
        plain.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"there");
    }
}

#[tokio::test]
async fn what_was_tampered_with_is_refused_and_the_peer_hears_why() {
    let Two { client, server, .. } = two();
    let (near, mut middle) = duplex(1 << 20);
    let (mut other, far) = duplex(1 << 20);
    let meddle = async {
        // the handshake passes; then a bit is turned
        let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut told = false;
        loop {
            tokio::select! {
                read = middle.read(&mut up) => {
                    let read = read.unwrap();
                    if read == 0 { break }
                    // what the client says after its handshake is one record of 5 + 4 + 17 bytes
                    if read == 26 {
                        up[10] ^= 1;
                        told = true;
                    }
                    other.write_all(&up[..read]).await.unwrap();
                }
                read = other.read(&mut down) => {
                    let read = read.unwrap();
                    if read == 0 { break }
                    middle.write_all(&down[..read]).await.unwrap();
                }
            }
        }
        told
    };
    let speak = async {
        let (near, far) = tokio::join!(dials(near, client), answers(far, server));
        let ((mut near, ..), (mut far, ..)) = (near.unwrap(), far.unwrap());
        near.write_all(b"word").await.unwrap();
        near.flush().await.unwrap();
        let refused = HandshakeError::of(far.read_u8().await.unwrap_err());
        assert!(matches!(refused, HandshakeError::Tls(rustls::Error::DecryptError)), "{refused:?}");
        assert!(far.write_all(b"x").await.is_err(), "a session that failed is of no use");
        let heard = HandshakeError::of(near.read_u8().await.unwrap_err());
        assert!(matches!(heard, HandshakeError::RefusedByPeer(AlertDescription::BadRecordMac)), "{heard:?}");
    };
    let (told, ()) = tokio::join!(meddle, speak);
    assert!(told);
}

#[tokio::test]
async fn who_is_refused_hears_why_and_a_cut_is_no_end() {
    let mut acme = Organization::new("acme.tombolo.internal");
    let one = acme.join("cluster-1");
    let stranger = acme.intermediate("cluster-2", valid());
    let store = acme.store();
    let id = stranger.gateway(GatewayRole::Egress);
    let client = client_config(&store, &stranger.credentials(&id), Expect::AnyInBundle, ALPN);
    let server = server_config(&store, &one.credentials(&one.gateway(GatewayRole::Ingress)), ALPN);
    let (near, far) = duplex(1 << 20);
    let (near, far) = tokio::join!(dials(near, client), answers(far, server));
    assert!(far.unwrap_err().is_revoked());
    // it is told with the first read
    let (mut near, ..) = near.unwrap();
    let heard = HandshakeError::of(near.read_u8().await.unwrap_err());
    assert!(heard.is_revoked(), "{heard:?}");

    // the other way round
    let client =
        client_config(&store, &one.credentials(&one.gateway(GatewayRole::Egress)), Expect::AnyInBundle, ALPN);
    let server = server_config(&store, &stranger.credentials(&id), ALPN);
    let (near, far) = duplex(1 << 20);
    let (near, far) = tokio::join!(dials(near, client), answers(far, server));
    assert!(near.unwrap_err().is_revoked());
    let far = far.unwrap_err();
    assert!(matches!(far, HandshakeError::RefusedByPeer(AlertDescription::CertificateRevoked)), "{far:?}");

    let [(mut near, _), (far, _)] = wires(1 << 20).await;
    drop(far);
    assert_eq!(near.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    let mut rest = Vec::new();
    assert!(near.read_to_end(&mut rest).await.is_err(), "no end without a word");
}

#[tokio::test]
async fn a_cork_gathers_what_is_written_meanwhile() {
    let [(mut near, cork), (mut far, _)] = wires(1 << 20).await;
    poll_fn(|cx| {
        cork.poll(cx, |cx| {
            for _ in 0..100 {
                let written = Pin::new(&mut near).poll_write(cx, &[7; 100]);
                assert!(matches!(written, Poll::Ready(Ok(100))));
                assert!(Pin::new(&mut near).poll_flush(cx).is_ready());
            }
            let mut one = [0];
            let read = Pin::new(&mut far).poll_read(cx, &mut ReadBuf::new(&mut one));
            assert!(read.is_pending(), "nothing is written yet");
            Poll::<()>::Pending
        })
        .is_pending()
        .then_some(())
        .map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    let mut all = vec![0; 10_000];
    far.read_exact(&mut all).await.unwrap();
    assert!(all.iter().all(|byte| *byte == 7));

    // Where nobody reads, the writer is told to wait; where somebody does, all comes.
    let [(mut near, cork), (mut far, _)] = wires(1000).await;
    let sent = bytes(1 << 20);
    let mut at = 0;
    let writes = poll_fn(|cx| {
        cork.poll(cx, |cx| {
            while at < sent.len() {
                match Pin::new(&mut near).poll_write(cx, &sent[at..(at + 50_000).min(sent.len())]) {
                    Poll::Ready(written) => at += written.unwrap(),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Pin::new(&mut near).poll_shutdown(cx)
        })
    });
    let mut all = Vec::new();
    let (written, read) = tokio::join!(writes, far.read_to_end(&mut all));
    written.unwrap();
    assert!(read.unwrap() == sent.len() && all == sent);
}

/// A peer that is gone is told to whoever writes, once the turn is over, and the task is woken for it.
#[tokio::test]
async fn who_writes_to_a_peer_that_is_gone_hears_it() {
    let [(mut near, cork), (far, _)] = wires(1000).await;
    drop(far);
    let mut turns = 0;
    let lost = poll_fn(|cx| {
        turns += 1;
        assert!(turns < 10);
        cork.poll(cx, |cx| match Pin::new(&mut near).poll_write(cx, b"word") {
            Poll::Ready(Ok(_)) => Poll::Pending,
            other => other,
        })
    });
    let lost = tokio::time::timeout(std::time::Duration::from_secs(20), lost).await.unwrap().unwrap_err();
    assert_eq!(lost.kind(), std::io::ErrorKind::BrokenPipe);
}

/// What nobody reads does not pile up here.
#[tokio::test]
async fn a_writer_waits_where_nobody_reads() {
    let [(mut near, cork), (_far, _)] = wires(1000).await;
    let taken = poll_fn(|cx| {
        let mut taken = 0;
        let polled = cork.poll(cx, |cx| {
            while let Poll::Ready(written) = Pin::new(&mut near).poll_write(cx, &[7; 10_000]) {
                taken += written.unwrap();
                assert!(taken < 1 << 20);
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        Poll::Ready(taken)
    })
    .await;
    assert!(((64 << 10)..(100 << 10)).contains(&taken), "{taken}");
    assert!(!cork.is_clear());
}
