//! Takes a copy of what a replica holds, as one that wants to follow it: the process hands over its data set as of one moment,
//! and goes on serving. Redis' own tools take copies in the same way.

use std::{future::Future, io, time::Duration};

use bytes::{Bytes, BytesMut};
use domain::HostPort;
use feature_shards::{ShardClient, ShardError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::{
    SnapshotError,
    secure::{self, AnyConnection},
    wire::{command, line},
};

/// While the copy is being prepared the process sends signs of life every second.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 256 << 10;
const MARK_BYTES: usize = 40;
/// More than any shard has.
const COPY_BYTES_MAX: u64 = 160_000_000_000;

/// A copy that is being taken. Dropping it ends it.
pub(crate) struct Copying {
    address: HostPort,
    stream: BufReader<AnyConnection>,
    end: End,
    held_back: BytesMut,
    received: u64,
    pub(crate) replication_id: String,
    pub(crate) offset: u64,
}

/// How the end of the copy is known.
enum End {
    /// So many bytes are left.
    Bytes(u64),
    /// These come behind it, and then nothing.
    Mark([u8; MARK_BYTES]),
    Reached,
}

impl Copying {
    /// # Errors
    /// When the process does not answer, lets nobody in, or has no primary of its own at the moment.
    pub(crate) async fn begin(client: &ShardClient, address: &HostPort) -> Result<Self, SnapshotError> {
        let connected = secure::connect(address, client.tls()).await;
        let stream = connected.map_err(|error| SnapshotError::copy(address, error.to_string()))?;
        let mut talk = Talk { address, client, stream: BufReader::with_capacity(READ_BYTES, stream) };
        talk.log_in().await?;
        // `eof` lets it send without writing a file first; what comes after the copy is not wanted.
        talk.expect_ok(&[b"REPLCONF", b"capa", b"eof"]).await?;
        talk.expect_ok(&[b"REPLCONF", b"rdb-only", b"1"]).await?;
        let (replication_id, offset) = talk.full_copy().await?;
        let end = talk.end_of_copy().await?;
        let stream = talk.stream;
        Ok(Self { address: address.clone(), stream, end, held_back: BytesMut::new(), received: 0, replication_id, offset })
    }

    /// The next bytes; `None` behind the last.
    ///
    /// # Errors
    /// When the connection ends or is silent before the copy is whole.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        loop {
            let wanted = match self.end {
                End::Reached => return Ok(None),
                End::Bytes(left) => usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES),
                End::Mark(_) => READ_BYTES,
            };
            self.held_back.reserve(wanted);
            let read = alive(&self.address, (&mut self.stream).take(wanted as u64).read_buf(&mut self.held_back)).await?;
            if read == 0 {
                return Err(SnapshotError::copy(&self.address, "the connection ended in the middle of the copy"));
            }
            self.received += read as u64;
            if self.received > COPY_BYTES_MAX {
                return Err(SnapshotError::copy(&self.address, format!("it is larger than {COPY_BYTES_MAX} bytes")));
            }
            let ready = self.ready(read);
            if !ready.is_empty() {
                return Ok(Some(ready));
            }
        }
    }

    /// What of the bytes that were read surely belongs to the copy.
    fn ready(&mut self, read: usize) -> Bytes {
        match &mut self.end {
            End::Bytes(left) => {
                *left = left.saturating_sub(read as u64);
                if *left == 0 {
                    self.end = End::Reached;
                }
                self.held_back.split().freeze()
            }
            End::Mark(mark) if self.held_back.ends_with(mark) => {
                self.end = End::Reached;
                let length = self.held_back.len() - MARK_BYTES;
                self.held_back.split_to(length).freeze()
            }
            // The mark may have begun.
            End::Mark(_) => self.held_back.split_to(self.held_back.len().saturating_sub(MARK_BYTES)).freeze(),
            End::Reached => Bytes::new(),
        }
    }
}

/// Fails when nothing comes for too long.
async fn alive<T>(address: &HostPort, reading: impl Future<Output = io::Result<T>>) -> Result<T, SnapshotError> {
    match tokio::time::timeout(SILENCE_MAX, reading).await {
        Ok(read) => read.map_err(|error| SnapshotError::copy(address, error.to_string())),
        Err(_) => Err(SnapshotError::copy(address, format!("nothing came for {} s", SILENCE_MAX.as_secs()))),
    }
}

/// What is said before the copy comes.
struct Talk<'a> {
    address: &'a HostPort,
    client: &'a ShardClient,
    stream: BufReader<AnyConnection>,
}

impl Talk<'_> {
    async fn log_in(&mut self) -> Result<(), SnapshotError> {
        let Some((user, password)) = self.client.login() else { return Ok(()) };
        self.expect_ok(&[b"AUTH", user.as_bytes(), password.as_bytes()]).await
    }

    async fn expect_ok(&mut self, words: &[&[u8]]) -> Result<(), SnapshotError> {
        let answer = self.ask(words).await?;
        if answer == "+OK" { Ok(()) } else { Err(self.refused(&answer)) }
    }

    async fn full_copy(&mut self) -> Result<(String, u64), SnapshotError> {
        let answer = self.ask(&[b"PSYNC", b"?", b"-1"]).await?;
        let said = answer.strip_prefix("+FULLRESYNC ").and_then(|rest| rest.split_once(' '));
        let known = said.and_then(|(id, offset)| Some((id.to_owned(), offset.parse().ok()?)));
        known.filter(|(id, _)| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).ok_or_else(|| self.refused(&answer))
    }

    async fn end_of_copy(&mut self) -> Result<End, SnapshotError> {
        let head = alive(self.address, line(&mut self.stream)).await?;
        let mark = head.strip_prefix("$EOF:").and_then(|mark| mark.as_bytes().try_into().ok()).map(End::Mark);
        let length = || head.strip_prefix('$')?.parse().ok().filter(|length| *length > 0).map(End::Bytes);
        mark.or_else(length).ok_or_else(|| self.refused(&head))
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Result<String, SnapshotError> {
        alive(self.address, self.stream.write_all(&command(words))).await?;
        alive(self.address, self.stream.flush()).await?;
        alive(self.address, line(&mut self.stream)).await
    }

    fn refused(&self, answer: &str) -> SnapshotError {
        let (address, said) = (self.address.clone(), answer.chars().take(200).collect::<String>());
        let user = self.client.login().map_or("default", |(user, _)| user).to_owned();
        match answer.split(' ').next().unwrap_or_default() {
            "-WRONGPASS" | "-NOAUTH" => ShardError::Login { address, user, said }.into(),
            "-NOPERM" => ShardError::Rights { address, said }.into(),
            _ => SnapshotError::copy(self.address, format!("it answered {said:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A replica that says `head` and sends `body` in pieces, with an end to the connection behind it.
    async fn copy_of(head: String, body: Vec<u8>, piece: usize) -> Result<Vec<u8>, SnapshotError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = HostPort { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            for answer in ["+OK\r\n", "+OK\r\n", "+FULLRESYNC 0123456789012345678901234567890123456789 77\r\n"] {
                crate::wire::next_command(&mut stream).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            stream.write_all(format!("\n{head}\r\n").as_bytes()).await.unwrap();
            for piece in body.chunks(piece) {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut copying = Copying::begin(&ShardClient::without_login(), &address).await?;
        assert_eq!(copying.offset, 77);
        let mut all = Vec::new();
        while let Some(bytes) = copying.next().await? {
            all.extend_from_slice(&bytes);
        }
        served.await.unwrap();
        Ok(all)
    }

    fn body() -> Vec<u8> {
        (0..=255).cycle().take(100_000).collect()
    }

    #[tokio::test]
    async fn a_copy_comes_whole_whichever_way_its_end_is_told_and_however_it_is_cut_up() {
        let mark = "m".repeat(MARK_BYTES);
        for piece in [1_013, 39, 100_000] {
            let sent = [body(), mark.clone().into_bytes()].concat();
            assert!(copy_of(format!("$EOF:{mark}"), sent, piece).await.unwrap() == body());
            assert!(copy_of("$100000".into(), body(), piece).await.unwrap() == body());
        }
    }

    #[tokio::test]
    async fn half_a_copy_is_an_error() {
        for head in ["$100001".to_owned(), format!("$EOF:{}", "m".repeat(MARK_BYTES))] {
            let error = copy_of(head, body(), 1_000).await.unwrap_err().to_string();
            assert!(error.contains("in the middle of the copy"), "{error}");
        }
        let error = copy_of("-ERR no".into(), Vec::new(), 1).await.unwrap_err().to_string();
        assert!(error.contains("it answered \"-ERR no\""), "{error}");
    }
}
