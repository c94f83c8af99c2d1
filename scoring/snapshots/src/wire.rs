//! The few parts of Redis' protocol that replication begins with, over any stream. Everything is bounded.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

const LINE_BYTES_MAX: u64 = 1_024;
const WORDS_MAX: usize = 16;
const WORD_BYTES_MAX: usize = 1_024;

/// A command as clients send it.
pub(crate) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(*word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// The next line that is not empty: empty ones only say that somebody is alive.
pub(crate) async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<String> {
    loop {
        let mut bytes = Vec::new();
        (&mut *stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await?;
        if bytes.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if bytes.last() != Some(&b'\n') {
            return Err(invalid("a line without an end"));
        }
        let text = String::from_utf8(bytes).map_err(|_| invalid("a line that is no text"))?;
        if !text.trim_end().is_empty() {
            return Ok(text.trim_end().to_owned());
        }
    }
}

/// The next command that somebody sends.
pub(crate) async fn next_command(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<String>> {
    let count = number(&line(stream).await?, '*').filter(|count| (1..=WORDS_MAX).contains(count));
    let count = count.ok_or_else(|| invalid("something that is no command"))?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number(&line(stream).await?, '$').filter(|length| *length <= WORD_BYTES_MAX);
        words.push(word(stream, length.ok_or_else(|| invalid("a command with a word that is too long"))?).await?);
    }
    Ok(words)
}

async fn word(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Result<String> {
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes).await?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn number(line: &str, mark: char) -> Option<usize> {
    line.strip_prefix(mark)?.parse().ok()
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("it sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_read_as_it_was_written_whatever_signs_of_life_come_before_it() {
        let sent = [b"\n\r\n".as_slice(), &command(&[b"REPLCONF", b"", b"a b"]), b"+OK\r\n"].concat();
        let mut stream = sent.as_slice();
        assert_eq!(next_command(&mut stream).await.unwrap(), ["REPLCONF", "", "a b"]);
        assert_eq!(line(&mut stream).await.unwrap(), "+OK");
        assert_eq!(line(&mut stream).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn whatever_is_not_that_is_an_error_and_takes_little_memory() {
        let long = [b'x'; 5_000];
        for sent in
            [b"*0\r\n".as_slice(), b"*99\r\n", b"PING\r\n", b"*1\r\n$9999999\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$5\r\nab", &long, b"\xff\n"]
        {
            next_command(&mut &*sent).await.unwrap_err();
        }
    }
}
