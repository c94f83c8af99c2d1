//! Hands a data set to a process that was told to follow us, as a primary would.
//!
//! Whoever connects has to log in with what the process itself logs in with at primaries, so nobody else gets the data.

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use domain::HostPort;
use feature_shards::UpstreamLogin;
use futures::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket, lookup_host},
    time::Instant,
};

use crate::{
    Identity, ReplaceOptions, SnapshotError, Storage,
    secure::AnyConnection,
    wire::{command, next_command},
};

/// For the first sign of the process.
const COMES_WITHIN: Duration = Duration::from_secs(30);
/// For the greeting, and for each piece to be taken.
const STEP_WITHIN: Duration = Duration::from_secs(30);
/// A greeting has about ten commands.
const WORDS_MAX: usize = 32;
/// A process that comes back so often in vain will not get it.
const ATTEMPTS_MAX: u32 = 3;

/// What is handed over.
pub(crate) enum DataSet {
    Bytes(Bytes),
    Stored { storage: Storage, object: String, bytes: u64, sha256: String },
}

impl DataSet {
    fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stored { bytes, .. } => *bytes,
        }
    }

    /// Always as many bytes as were told, or an error.
    fn pieces(&self) -> futures::stream::BoxStream<'static, Result<Bytes, SnapshotError>> {
        match self {
            Self::Bytes(bytes) => stream::iter([Ok(bytes.clone())]).boxed(),
            Self::Stored { storage, object, bytes, sha256 } => {
                let problem = "it changed after it had been checked".to_owned();
                let changed = SnapshotError::Damaged { object: object.clone(), problem };
                verified(storage.pieces(object, *bytes), sha256.clone(), changed).boxed()
            }
        }
    }
}

/// Keeps the last piece back until it is known that all of them are what they should be.
fn verified(
    pieces: impl Stream<Item = Result<Bytes, SnapshotError>> + Send + 'static,
    sha256: String,
    changed: SnapshotError,
) -> impl Stream<Item = Result<Bytes, SnapshotError>> + Send {
    let start = (Box::pin(pieces), Sha256::new(), None::<Bytes>, Some((sha256, changed)));
    stream::try_unfold(start, |(mut pieces, mut digest, held, mut expected)| async move {
        let Some((sha256, changed)) = expected.take() else { return Ok(None) };
        match pieces.next().await {
            Some(piece) => {
                let piece = piece?;
                digest.update(&piece);
                Ok(Some((held.unwrap_or_default(), (pieces, digest, Some(piece), Some((sha256, changed))))))
            }
            None if hex::encode(digest.finalize_reset()) == sha256 => Ok(Some((held.unwrap_or_default(), (pieces, digest, None, None)))),
            None => Err(changed),
        }
    })
}

/// Where we wait for the process.
pub(crate) struct Offer {
    listener: TcpListener,
    /// What the process is told to follow.
    pub(crate) address: HostPort,
    replication_id: String,
    offset: u64,
    identity: Option<Identity>,
}

impl Offer {
    /// Listens where the process can reach us: on the address from which we reach it, unless another one is given.
    pub(crate) async fn open(target: &HostPort, options: &ReplaceOptions, offset: u64) -> Result<Self, SnapshotError> {
        let failed = |error: io::Error| SnapshotError::not_taken(target, format!("nothing can be offered to it: {error}"));
        let own = own_address(target).await.map_err(failed)?;
        let any: IpAddr = if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let listener = TcpListener::bind((if options.advertise.is_some() { any } else { own }, options.port)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let address = HostPort { host: options.advertise.clone().unwrap_or_else(|| own.to_string()), port };
        // A history of its own: nobody who follows the process later can take its former history for this one.
        let replication_id = hex::encode(rand::random::<[u8; 20]>());
        Ok(Self { listener, address, replication_id, offset, identity: options.identity.clone() })
    }

    /// Until the process has loaded everything and says so. Gives the connection, without which it would take us for gone.
    pub(crate) async fn hand_over(
        &self,
        target: &HostPort,
        login: Option<&UpstreamLogin>,
        data: &DataSet,
    ) -> Result<AnyConnection, SnapshotError> {
        let (mut attempts, mut why) = (0, "nobody came".to_owned());
        let mut wait_until = Instant::now() + COMES_WITHIN;
        while attempts < ATTEMPTS_MAX {
            let Ok(accepted) = tokio::time::timeout_at(wait_until, self.listener.accept()).await else {
                return Err(SnapshotError::not_taken(
                    target,
                    format!(
                        "{why}, and it did not come to {} within {} s. Does it reach this address (--advertise)? Has somebody else changed its role?",
                        self.address,
                        COMES_WITHIN.as_secs()
                    ),
                ));
            };
            let Ok((stream, peer)) = accepted else { continue };
            let mut guest = match in_time(self.let_in(stream, login)).await {
                Ok(guest) => guest,
                Err(error) => {
                    why = format!("{peer} was not let in ({error})");
                    continue;
                }
            };
            attempts += 1;
            match guest.give(data).await {
                Ok(()) => return Ok(guest.stream.into_inner()),
                Err(Ended::Data(error)) => return Err(error),
                Err(Ended::Connection(error)) => why = format!("the connection ended: {error}"),
            }
            wait_until = Instant::now() + COMES_WITHIN;
        }
        Err(SnapshotError::not_taken(
            target,
            format!("{why}, {ATTEMPTS_MAX} times. Its log says why: too little memory or room on its disk?"),
        ))
    }

    /// One that has shown who it is, and asks for a copy.
    async fn let_in<'a>(&'a self, stream: TcpStream, login: Option<&'a UpstreamLogin>) -> io::Result<Guest<'a>> {
        let connection = match &self.identity {
            Some(identity) => identity.accept(stream).await?,
            None => Box::new(stream),
        };
        let mut guest = Guest { stream: BufReader::new(connection), login, offer: self };
        guest.greet().await?;
        Ok(guest)
    }
}

/// The address from which packets to the process leave.
async fn own_address(target: &HostPort) -> io::Result<IpAddr> {
    let address: SocketAddr = lookup_host((target.host.as_str(), target.port)).await?.next().ok_or(ErrorKind::NotFound)?;
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Sends nothing.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket.local_addr()?.ip())
}

/// Why a guest did not get everything.
enum Ended {
    Data(SnapshotError),
    Connection(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

struct Guest<'a> {
    stream: BufReader<AnyConnection>,
    login: Option<&'a UpstreamLogin>,
    offer: &'a Offer,
}

impl Guest<'_> {
    /// Answers until a copy is asked for.
    async fn greet(&mut self) -> io::Result<()> {
        let mut known = self.login.is_none();
        for _ in 0..WORDS_MAX {
            let words = next_command(&mut self.stream).await?;
            let name = words[0].to_ascii_uppercase();
            let answer = match name.as_str() {
                "AUTH" if self.is_login(&words[1..]) => {
                    known = true;
                    "+OK"
                }
                "AUTH" => return self.refuse("-WRONGPASS invalid username-password pair").await,
                // Asked before anything else, to find out who is there.
                "PING" if !known => "-NOAUTH Authentication required.",
                _ if !known => return self.refuse("-NOAUTH Authentication required.").await,
                "PING" => "+PONG",
                "REPLCONF" => "+OK",
                "PSYNC" => return Ok(()),
                _ => return self.refuse("-ERR unknown command").await,
            };
            self.say(answer).await?;
        }
        self.refuse("-ERR nothing but greetings").await
    }

    fn is_login(&self, words: &[String]) -> bool {
        let Some(UpstreamLogin { user, password }) = self.login else { return true };
        match words {
            [given] => user.is_none() && given == password,
            [name, given] => user.as_ref().is_none_or(|user| user == name) && given == password,
            _ => false,
        }
    }

    async fn refuse(&mut self, answer: &str) -> io::Result<()> {
        self.say(answer).await?;
        Err(io::Error::new(ErrorKind::PermissionDenied, answer.to_owned()))
    }

    async fn say(&mut self, answer: &str) -> io::Result<()> {
        self.send(format!("{answer}\r\n").as_bytes()).await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        in_time(async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    async fn give(&mut self, data: &DataSet) -> Result<(), Ended> {
        let Offer { replication_id, offset, .. } = self.offer;
        self.say(&format!("+FULLRESYNC {replication_id} {offset}")).await?;
        self.send(format!("${}\r\n", data.bytes()).as_bytes()).await?;
        let mut pieces = data.pieces();
        while let Some(piece) = pieces.next().await {
            for part in piece.map_err(Ended::Data)?.chunks(64 << 10) {
                self.send(part).await?;
            }
        }
        // It answers this when it has loaded everything, instead of some time within a second.
        self.send(&command(&[b"REPLCONF", b"GETACK", b"*"])).await?;
        self.acknowledged().await?;
        Ok(())
    }

    /// However long it takes to load: the caller has a deadline, and signs of life come all the time.
    async fn acknowledged(&mut self) -> io::Result<()> {
        loop {
            let words = next_command(&mut self.stream).await?;
            let acknowledged = match &words[..] {
                [name, what, offset, ..] if name.eq_ignore_ascii_case("replconf") && what.eq_ignore_ascii_case("ack") => {
                    offset.parse().ok()
                }
                _ => None,
            };
            if acknowledged.is_some_and(|offset: u64| offset >= self.offer.offset) {
                return Ok(());
            }
        }
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STEP_WITHIN, step).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt};

    use super::*;

    fn target() -> HostPort {
        HostPort { host: "127.0.0.1".into(), port: 1 }
    }

    fn login() -> UpstreamLogin {
        UpstreamLogin { user: Some("replication".into()), password: "secret".into() }
    }

    async fn ask(stream: &mut BufReader<TcpStream>, words: &[&[u8]]) -> String {
        stream.write_all(&command(words)).await.unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).await.unwrap();
        answer.trim_end().to_owned()
    }

    async fn visit(offer: &Offer) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect((offer.address.host.as_str(), offer.address.port)).await.unwrap())
    }

    #[tokio::test]
    async fn only_whoever_logs_in_as_the_process_would_gets_the_data() {
        let offer = Offer::open(&target(), &ReplaceOptions::in_epoch(domain::Epoch(1)), 5).await.unwrap();
        let (data, login, target) = (DataSet::Bytes(Bytes::from_static(b"DATA")), login(), target());
        let guests = async {
            let mut stranger = visit(&offer).await;
            assert!(ask(&mut stranger, &[b"PING"]).await.starts_with("-NOAUTH"));
            assert!(ask(&mut stranger, &[b"PSYNC", b"?", b"-1"]).await.starts_with("-NOAUTH"));
            let mut guesser = visit(&offer).await;
            assert!(ask(&mut guesser, &[b"AUTH", b"replication", b"guess"]).await.starts_with("-WRONGPASS"));
            let mut process = visit(&offer).await;
            assert!(ask(&mut process, &[b"AUTH", b"replication", b"secret"]).await == "+OK");
            assert!(ask(&mut process, &[b"PING"]).await == "+PONG");
            assert!(ask(&mut process, &[b"REPLCONF", b"capa", b"eof"]).await == "+OK");
            assert!(ask(&mut process, &[b"PSYNC", b"?", b"-1"]).await.ends_with(" 5"));
            let mut received = [0; 8];
            process.read_exact(&mut received).await.unwrap();
            assert_eq!(&received, b"$4\r\nDATA");
            process.write_all(b"\n").await.unwrap();
            process.write_all(&command(&[b"REPLCONF", b"ACK", b"5"])).await.unwrap();
        };
        let (taken, ()) = tokio::join!(offer.hand_over(&target, Some(&login), &data), guests);
        taken.unwrap();
    }

    #[tokio::test]
    async fn a_copy_that_changed_since_it_was_checked_is_never_handed_over_whole() {
        let pieces = || stream::iter([Ok(Bytes::from_static(b"ab")), Ok(Bytes::from_static(b"cd"))]);
        let changed = || SnapshotError::Damaged { object: "x".into(), problem: "changed".into() };
        let good = hex::encode(Sha256::digest(b"abcd"));
        let all: Vec<Bytes> = verified(pieces(), good, changed()).try_collect().await.unwrap();
        assert_eq!(all.concat(), b"abcd");
        let outcome: Vec<_> = verified(pieces(), "00".into(), changed()).collect().await;
        let given: Vec<u8> = outcome.iter().flatten().flat_map(|piece| piece.to_vec()).collect();
        assert!(given == b"ab" && outcome.last().is_some_and(Result::is_err));
    }
}
